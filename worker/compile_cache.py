"""What torch compiled, kept in the object store for the next worker of the same kind.

https://docs.pytorch.org/tutorials/recipes/torch_compile_caching_tutorial.html

These bytes are code: torch executes what it is given. So they are signed with a key that only the database holds, and
nothing is loaded that a worker of this farm did not write; who can write to the store alone cannot run code on workers.
"""

import hashlib
import hmac
import logging
import platform
from importlib.metadata import PackageNotFoundError, version

import torch
from sqlalchemy import Engine

from farm.errors import ObjectMissingError, StoreError
from farm.keys import compiled_key
from farm.signing_keys import signing_key
from farm.storage import ObjectStore
from worker.pipelines import LoadedPipeline

logger = logging.getLogger(__name__)

_SIGNATURE_BYTES = hashlib.sha256().digest_size


class CompileCache:
    """The kept compilations of one kind of worker: pipeline, options, device and versions."""

    def __init__(self, store: ObjectStore, engine: Engine, pipeline: LoadedPipeline) -> None:
        self._store = store
        self._secret = signing_key(engine, "compiled").encode()
        #: Where they lie in the store.
        self.key = compiled_key(hashlib.sha256(_kind(pipeline).encode()).hexdigest())

    def fetch(self) -> bool:
        """Give torch what another worker has compiled. False if there is nothing, or nothing that can be trusted."""
        try:
            kept = self._store.get(self.key)
        except ObjectMissingError:
            return False
        except StoreError as error:
            logger.warning("compilations cannot be fetched, so they are made anew: %s", error)
            return False
        signature, artefacts = kept[:_SIGNATURE_BYTES], kept[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(artefacts)):
            logger.error("%s was not written by a worker of this farm, and is not loaded", self.key)
            return False
        return torch.compiler.load_cache_artifacts(artefacts) is not None

    def share(self) -> bool:
        """Keep what this process has compiled. False if it compiled nothing, or the store did not take it."""
        saved = torch.compiler.save_cache_artifacts()
        if saved is None:
            return False
        artefacts, _ = saved
        try:
            self._store.put(self.key, self._signature(artefacts) + artefacts, "application/octet-stream")
        except StoreError as error:
            logger.warning("compilations cannot be shared: %s", error)
            return False
        return True

    def _signature(self, artefacts: bytes) -> bytes:
        # With the key, so that one kind's object cannot be put in place of another's.
        return hmac.digest(self._secret, self.key.encode() + b"\0" + artefacts, "sha256")


def _kind(pipeline: LoadedPipeline) -> str:
    """All that decides whether compiled code fits."""
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = "none"
    entry = pipeline.entry.model_dump_json(exclude={"defaults"})
    stages = ",".join(sorted(stage.value for stage in pipeline.adapters))
    return "\n".join([entry, stages, *pipeline.fingerprint.values(), triton, platform.python_version()])
