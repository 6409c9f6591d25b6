"""Fetches from the model hub into its cache what entries need, and checks every file against what the hub states.

Files that are there and whole are kept: a fetch that broke off goes on with the others.
"""

from collections.abc import Callable
from glob import escape
from pathlib import Path

from farm.checkpoints.hashes import find_damage, remove
from farm.checkpoints.holdings import Holding, look
from farm.checkpoints.needs import Layout, Need
from farm.checkpoints.selection import INDEX
from farm.errors import CheckpointError

#: What is damaged is fetched once more.
ATTEMPTS = 2


def fetch(need: Need, on_file: Callable[[Path], None] = lambda _: None) -> Holding:
    """Get what of a need of the hub is missing or damaged. Raises CheckpointError, which says what to do.

    ``on_file`` hears of each file before it is checked.
    """
    assert need.repository is not None  # noqa: S101 - what is on this machine is not fetched
    # With these comes the list of all files, and with that what is wanted.
    first = {Layout.FILE: need.name, Layout.MODEL: f"{need.name}/config.json".removeprefix("/")}
    _download(need.repository, [first.get(need.layout, INDEX)])
    for attempt in range(ATTEMPTS):
        holding = look(need)
        if holding.folder is None or not holding.wanted:
            raise CheckpointError(
                f"{need.repository} on the model hub is not what the catalog takes it for ({need.role}): "
                f"{holding.missing}. Correct the entry."
            )
        _download(need.repository, list(holding.wanted), holding.folder.name)
        damaged = list(find_damage(holding, on_file))
        if not damaged:
            return look(need)
        for one in damaged:
            remove(one.file)
        if attempt == ATTEMPTS - 1:
            raise CheckpointError(
                f"{damaged[0].file.name} of {need.repository} {damaged[0].what}. It was damaged on its way, twice, and "
                f"was removed. Look at proxies between here and the hub, then pull again."
            )
    raise AssertionError


def _download(repository: str, names: list[str], revision: str | None = None) -> None:
    """Fetch files of a repository that are not in the cache yet; ``revision`` is a commit."""
    try:
        import httpx2
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )
    except ModuleNotFoundError:
        raise CheckpointError(
            "Fetching from the model hub takes the worker's packages: pip install 'sdxl-farm[worker]'"
        ) from None
    try:
        snapshot_download(repository, revision=revision, allow_patterns=[escape(name) for name in names])
    except GatedRepoError as refused:
        raise CheckpointError(
            f"{repository} is given only to those who agreed to its terms: agree on its page of the model hub, and set "
            f"HF_TOKEN to a token of yours."
        ) from refused
    except RepositoryNotFoundError as refused:
        raise CheckpointError(
            f"The model hub has no {repository}, or not for everybody. Correct its name in the catalog, or set "
            f"HF_TOKEN to a token that may read it."
        ) from refused
    except HFValidationError as refused:
        raise CheckpointError(f"{repository!r} is no name on the model hub, which are owner/name.") from refused
    except (LocalEntryNotFoundError, httpx2.TransportError) as failed:
        raise CheckpointError(
            f"{repository} was not fetched completely: the model hub cannot be reached ({_short(failed)}). Look at "
            f"this machine's network, HF_ENDPOINT and HF_HUB_OFFLINE, and pull again: whole files are kept."
        ) from failed
    except (HfHubHTTPError, OSError) as failed:
        raise CheckpointError(
            f"{repository} was not fetched completely ({_short(failed)}). Pull again: whole files are kept."
        ) from failed


def _short(failed: BaseException) -> str:
    cause = failed.__cause__ or failed
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
