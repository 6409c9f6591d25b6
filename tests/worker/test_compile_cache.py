"""What one worker compiled the next of its kind gets from the store, and nothing that a worker did not write."""

import json
import os
import subprocess
import sys
from pathlib import Path

from farm.settings import Settings

#: Workers one after the other in one process, each with a directory of its own for what it compiles. Prints of each
#: whether it was given anything, whether it shared anything, and what it found and made of one piece of code.
WORKERS = """
import json, sys
from pathlib import Path
import torch
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache
from farm.catalog import Catalog
from farm.database import open_database
from farm.settings import Settings
from farm.states import Stage
from farm.storage import open_store
from worker.compile_cache import CompileCache
from worker.pipelines import load

settings = Settings()
store, engine = open_store(settings), open_database(settings)

def worker(compiles, **options):
    entry = Catalog.load().get("tiny").model_copy(update=options)
    pipeline = load(entry, Path(sys.argv[1]), "cpu", {Stage.REFINER})
    cache = CompileCache(store, engine, pipeline)
    torch.compiler.reset()
    counters.clear()
    with fresh_cache(), torch.no_grad():
        fetched = cache.fetch()
        if compiles:
            embedding = pipeline.refiner.unet.time_embedding
            torch.compile(embedding)(torch.ones(2, embedding.linear_1.in_features))
        shared = compiles and not fetched and cache.share()
    found = counters["inductor"]
    return cache.key, [fetched, shared, found["fxgraph_cache_hit"], found["fxgraph_cache_miss"]]

key, first = worker(True)
_, second = worker(True)
_, another_kind = worker(False, attention="math")
kept = store.get(key)
store.put(key, kept[:-1] + bytes([kept[-1] ^ 1]), "application/octet-stream")
_, forged = worker(False)
print(json.dumps([first, second, another_kind, forged]))
"""


def test_the_second_worker_of_a_kind_compiles_nothing(settings: Settings, models_directory: Path) -> None:
    environment = os.environ | {
        "FARM_DATABASE_URL": settings.database_url or "",
        "FARM_STORE_URL": settings.effective_store_url,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        # No pool of processes for one piece of code.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    if settings.s3_endpoint_url:
        environment["FARM_S3_ENDPOINT_URL"] = settings.s3_endpoint_url
    result = subprocess.run(
        [sys.executable, "-c", WORKERS, str(models_directory)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    first, second, another_kind, forged = json.loads(result.stdout.splitlines()[-1])
    assert first == [False, True, 0, 1]
    assert second == [True, False, 1, 0]
    assert another_kind == forged == [False, False, 0, 0]
