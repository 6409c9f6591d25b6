"""What one worker compiled the next of its kind gets from the store, and nothing that a worker did not write."""

import os
import subprocess
import sys
from pathlib import Path

from sqlalchemy import Engine

from farm.catalog import Catalog
from farm.settings import Settings
from farm.states import Stage
from farm.storage import open_store
from worker.compile_cache import CompileCache
from worker.pipelines import LoadedPipeline, load

TINY = Catalog.load().get("tiny")

#: A worker that compiles: prints whether it was given anything, whether it kept anything, and how much it had to make.
WORKER = """
import sys
from pathlib import Path
import torch
from torch._dynamo.utils import counters
from farm.catalog import Catalog
from farm.database import open_database
from farm.settings import Settings
from farm.states import Stage
from farm.storage import open_store
from worker.compile_cache import CompileCache
from worker.pipelines import load

settings = Settings()
pipeline = load(Catalog.load().get("tiny"), Path(sys.argv[1]), "cpu", {Stage.REFINER})
cache = CompileCache(open_store(settings), open_database(settings), pipeline)
fetched = cache.fetch()
embedding = torch.compile(pipeline.refiner.unet.time_embedding)
with torch.no_grad():
    embedding(torch.ones(2, embedding.linear_1.in_features))
shared = not fetched and cache.share()
print(fetched, shared, counters["inductor"]["fxgraph_cache_hit"], counters["inductor"]["fxgraph_cache_miss"])
"""


def worker(settings: Settings, models: Path, compiled: Path) -> list[str]:
    """What a worker with an empty directory of its own for compilations prints."""
    environment = os.environ | {
        "FARM_DATABASE_URL": settings.database_url or "",
        "FARM_STORE_URL": settings.effective_store_url,
        "TORCHINDUCTOR_CACHE_DIR": str(compiled),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    result = subprocess.run(
        [sys.executable, "-c", WORKER, str(models)], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.split()[-4:]


def cache(settings: Settings, engine: Engine, pipeline: LoadedPipeline) -> CompileCache:
    return CompileCache(open_store(settings), engine, pipeline)


def test_the_second_worker_of_a_kind_compiles_nothing(
    settings: Settings, engine: Engine, models_directory: Path, tmp_path: Path
) -> None:
    assert worker(settings, models_directory, tmp_path / "first") == ["False", "True", "0", "1"]
    assert worker(settings, models_directory, tmp_path / "second") == ["True", "False", "1", "0"]
    # Another kind, and bytes that were changed in the store.
    entry = TINY.model_copy(update={"compile": "regional"})
    another = load(entry, models_directory, "cpu", {Stage.REFINER})
    assert not cache(settings, engine, another).fetch()
    same = load(TINY, models_directory, "cpu", {Stage.REFINER})
    key = cache(settings, engine, same).key
    kept = open_store(settings).get(key)
    open_store(settings).put(key, kept[:-1] + bytes([kept[-1] ^ 1]), "application/octet-stream")
    assert not cache(settings, engine, same).fetch()
