"""How fast images are accepted: by JSON, a stream of JSON lines and the Python client, against bare COPY.

A farm of separate processes with one tiny worker takes jobs of growing size. Timed is the request, from its first byte
to the receipt. The rival writes the same rows (job, batches, images) with psycopg's COPY into the same tables, from
lines that are ready in memory: nothing is checked, expanded or sent over HTTP. Memory is the peak of the dashboard's
process during the request, above what it had before. After each job is accepted, the time until a worker has claimed
its first batch. Every way has a farm of its own, so that all begin with empty tables.

    .venv/bin/python benchmarks/submit.py
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy.engine import make_url

# In place of this folder, in which a script has the name of a package of ours: what the tests start farms with.
ROOT = Path(__file__).parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]

from running import RunningFarm, running_farm

import migrations
from farm import embedded
from farm.database import NEWS_CHANNEL, open_database
from farm.settings import Settings

AIM_SECONDS = 60
AIM_GROWTH_MIB = 200
AIM_RATIO = 0.25
AIM_CLAIM_SECONDS = 2
BATCH = 8
#: Prompts of the length that people write.
SUBJECTS = (
    "a red fox in the snow",
    "an owl on a branch at night",
    "a castle of glass above the sea",
    "two cats asleep",
)
STYLES = (
    "watercolour, soft light",
    "photograph, 85 mm, shallow depth of field",
    "woodcut",
    "oil on canvas, warm colours",
)
FIELDS = {
    "num_inference_steps": 4,
    "size": "64x64",
    "refiner_split": None,
    "batch_size": BATCH,
    "seed": 1,
    "name": "bench",
}

Send = Callable[[RunningFarm, int], int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    results = []
    ways: dict[str, Send] = {"COPY": by_copy, "JSON": by_json, "JSON lines": by_lines, "client": by_client}
    for name, send in track([*ways.items()], "ways", console=Console(stderr=True)):
        results += measure(name, send, options.images)
    report(results, as_json=options.json)


def prompt(number: int) -> str:
    return f"{SUBJECTS[number % 4]}, {STYLES[number // 4 % 4]}, number {number}"


def by_json(farm: RunningFarm, count: int) -> int:
    body = json.dumps({**FIELDS, "prompts": [prompt(number) for number in range(count)]}).encode()
    return _post(farm, content=body, headers={"Content-Type": "application/json"})


def by_lines(farm: RunningFarm, count: int) -> int:
    def lines() -> Iterator[bytes]:
        for first in range(0, count, 1000):
            rows = (json.dumps({"prompt": prompt(number)}) for number in range(first, min(first + 1000, count)))
            yield "".join(f"{row}\n" for row in rows).encode()

    headers = {"Content-Type": "application/x-ndjson"}
    return _post(farm, content=lines(), headers=headers, params={"spec": json.dumps(FIELDS)})


def by_client(farm: RunningFarm, count: int) -> int:
    return farm.client.submit(rows=({"prompt": prompt(number)} for number in range(count)), **FIELDS).id


def by_copy(farm: RunningFarm, count: int) -> int:
    """Rows as the farm writes them, without anything else."""
    parameters = json.dumps(
        {"pipeline": "tiny", "width": 64, "height": 64, "num_inference_steps": 4, "guidance_scale": 5.0}
    )
    with _connect(farm.settings) as connection:
        inserted = connection.execute(
            "INSERT INTO jobs (name, pipeline, spec, image_count, paused_at) VALUES ('copy', 'tiny', '{}', %s, now()) "
            "RETURNING id",
            (count,),
        ).fetchone()
        assert inserted
        (job_id,) = inserted
        with connection.cursor() as cursor:
            with cursor.copy("COPY batches (id, job_id, parameters) FROM STDIN") as copy:
                for batch in range(-(-count // BATCH)):
                    copy.write(f"{job_id * 1_000_000 + batch}\t{job_id}\t{parameters}\n")
            with cursor.copy('COPY images (job_id, "index", batch_id, prompt, seed) FROM STDIN') as copy:
                for first in range(0, count, 1000):
                    numbers = range(first, min(first + 1000, count))
                    copy.write(
                        "".join(
                            f"{job_id}\t{number}\t{job_id * 1_000_000 + number // BATCH}\t{prompt(number)}\t{number}\n"
                            for number in numbers
                        )
                    )
    return int(job_id)


def _post(farm: RunningFarm, **request: object) -> int:
    headers = {"Authorization": f"Bearer {farm.token}", **request.pop("headers")}  # type: ignore[dict-item]
    answer = httpx.post(f"{farm.url}/api/v1/jobs", headers=headers, timeout=600, **request)  # type: ignore[arg-type]
    answer.raise_for_status()
    return int(answer.json()["id"])


def measure(name: str, send: Send, sizes: list[int]) -> list[dict[str, float | str | int | None]]:
    results: list[dict[str, float | str | int | None]] = []
    with tempfile.TemporaryDirectory() as directory:
        # Others may look in: the embedded Postgres runs as a user of its own when started by root.
        root = Path(directory)
        root.chmod(0o755)
        (root / "logs").mkdir()
        with embedded.postgres(root / "postgres") as database, embedded.valkey(root / "valkey") as broker:
            settings = Settings(data=root / "data", database_url=database, broker_url=broker, pipeline="tiny", port=0)
            engine = open_database(settings)
            migrations.upgrade(engine)
            engine.dispose()
            with running_farm(settings, root / "logs", ["--device", "cpu"]) as farm:
                dashboard = farm.processes[1].pid
                send(farm, BATCH)
                for count in sizes:
                    before = _reset_peak(dashboard)
                    started = time.monotonic()
                    job_id = send(farm, count)
                    seconds = time.monotonic() - started
                    claimed = None if send is by_copy else _seconds_to_claim(farm, job_id)
                    results.append(
                        {
                            "way": name,
                            "images": count,
                            "seconds": seconds,
                            "images_per_second": count / seconds,
                            "growth_mib": None if send is by_copy else (_peak(dashboard) - before) / 1024,
                            "seconds_to_claim": claimed,
                        }
                    )
                    if send is not by_copy:
                        farm.client.job(job_id).cancel()
    return results


def _seconds_to_claim(farm: RunningFarm, job_id: int) -> float:
    """From the first look after the receipt to the first claim, by the database's clock; 0 if it was faster."""
    with _connect(farm.settings) as connection:
        connection.autocommit = True
        connection.execute(f"LISTEN {NEWS_CHANNEL}".encode())
        looked = connection.execute("SELECT clock_timestamp()").fetchone()
        assert looked
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            query = "SELECT extract(epoch FROM started_at - %s) FROM jobs WHERE id = %s AND started_at IS NOT NULL"
            if row := connection.execute(query, (looked[0], job_id)).fetchone():
                return max(0.0, float(row[0]))
            for _ in connection.notifies(timeout=1, stop_after=1):
                pass
    raise SystemExit(f"No worker began job {job_id}.")


def _connect(settings: Settings) -> "psycopg.Connection[tuple[object, ...]]":
    assert settings.database_url
    url = make_url(settings.database_url).set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False))


def _reset_peak(process: int) -> int:
    """Let the peak of a process's memory begin anew; returns its memory now, in KiB."""
    Path(f"/proc/{process}/clear_refs").write_text("5", encoding="ascii")
    return _peak(process)


def _peak(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def report(results: list[dict], *, as_json: bool) -> None:
    rival = {result["images"]: result["images_per_second"] for result in results if result["way"] == "COPY"}
    for result in results:
        result["ratio_to_copy"] = result["images_per_second"] / rival[result["images"]]
    if as_json:
        print(json.dumps(results))
        return
    table = Table("way", "images", "seconds", "images/s", "of COPY", "memory grew", "to first claim")
    for result in results:
        grew, claimed = result["growth_mib"], result["seconds_to_claim"]
        table.add_row(
            result["way"],
            f"{result['images']:,}",
            f"{result['seconds']:.2f}",
            f"{result['images_per_second']:,.0f}",
            f"{result['ratio_to_copy']:.2f}",
            "" if grew is None else f"{grew:.0f} MiB",
            "" if claimed is None else f"{claimed:.2f} s",
        )
    Console().print(table)
    waits = [result["seconds_to_claim"] for result in results if result["seconds_to_claim"] is not None]
    print(
        f"aims: 1,000,000 images in under {AIM_SECONDS} s, memory growth under {AIM_GROWTH_MIB} MiB, "
        f"at least {AIM_RATIO} of COPY, first claim within {AIM_CLAIM_SECONDS} s (slowest {max(waits):.2f} s)"
    )


if __name__ == "__main__":
    main()
