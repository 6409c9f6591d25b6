"""How fast the dashboard is when the farm is full: 1,000,000 images in 2,000 jobs, 20 readers, a job being rendered.

Each reader opens page after page, and looks at each for a second, as people do. Reported are the median and the 99th
percentile of the time from request to last byte, the bytes, and the database queries of each page and API listing; the
first contentful paint of a job's page in Chromium; and, as a rival, the same listings paged by OFFSET as most
dashboards do it, at the same place of the same table.

    .venv/bin/python benchmarks/dashboard.py
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psycopg
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import Engine, event

# In place of this folder, in which a script has the name of a package of ours: what the tests start farms with.
ROOT = Path(__file__).parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "browser")]

from running import running_farm

import migrations
from farm import embedded, people
from farm.database import open_database
from farm.settings import Settings

AIM_P99_MILLISECONDS = 100
AIM_QUERIES = 10
AIM_PAINT_MILLISECONDS = 1000
LARGE_JOB = 100_000

#: Tables as a farm leaves them after some weeks: most jobs done, some failed, some cancelled, one very large.
FILL = """
CREATE TEMPORARY TABLE plan AS
    SELECT n AS job_id, CASE WHEN n = 1 THEN %(large)s ELSE (%(images)s - %(large)s) / (%(jobs)s - 1) END AS images
    FROM generate_series(1, %(jobs)s) n;
INSERT INTO jobs (id, name, owner, pipeline, state, spec, image_count, images_completed, images_failed,
                  created_at, started_at, finished_at)
    OVERRIDING SYSTEM VALUE
    SELECT job_id, 'job ' || job_id, 'owner ' || job_id %% 7, 'tiny',
           (CASE WHEN job_id %% 20 = 0 THEN 'failed' ELSE 'completed' END)::job_state,
           '{"num_inference_steps": 20, "seed": 1}', images,
           CASE WHEN job_id %% 20 = 0 THEN images - 3 ELSE images END, CASE WHEN job_id %% 20 = 0 THEN 3 ELSE 0 END,
           now() - interval '20 days' + job_id * interval '10 minutes',
           now() - interval '20 days' + job_id * interval '10 minutes',
           now() - interval '20 days' + job_id * interval '11 minutes'
    FROM plan;
SELECT setval(pg_get_serial_sequence('jobs', 'id'), %(jobs)s);
CREATE TEMPORARY TABLE planned AS
    SELECT job_id, i AS index, row_number() OVER (ORDER BY job_id, i / 8) AS number,
           dense_rank() OVER (ORDER BY job_id, i / 8) AS batch_id
    FROM plan, LATERAL generate_series(0, images - 1) i;
INSERT INTO batches (id, job_id, state, parameters, attempt, worker_id, base_seconds, finished_at)
    OVERRIDING SYSTEM VALUE
    SELECT DISTINCT ON (batch_id) batch_id, job_id,
           (CASE WHEN job_id %% 20 = 0 AND index < 3 THEN 'failed' ELSE 'completed' END)::batch_state,
           '{"pipeline": "tiny", "width": 256, "height": 256, "num_inference_steps": 20, "guidance_scale": 5.0}'::jsonb,
           1, 'host/cuda:0/x', 3.5, now()
    FROM planned ORDER BY batch_id, index;
SELECT setval(pg_get_serial_sequence('batches', 'id'), max(id)) FROM batches;
INSERT INTO images (job_id, index, batch_id, state, prompt, seed, image_key, thumbnail_key, sha256, error, finished_at,
                    rating, tags)
    SELECT job_id, index, batch_id,
           (CASE WHEN failed THEN 'failed' ELSE 'completed' END)::image_state,
           (ARRAY['a red fox', 'an owl', 'a castle of glass', 'a boat', 'a portrait of a fisherman', 'two cats',
                  'a city seen from above'])[1 + number %% 7] || ' ' ||
           (ARRAY['in the snow', 'at night', 'in oil', 'in the rain', 'by the sea'])[1 + number %% 5] ||
           ', number ' || number,
           index, CASE WHEN NOT failed THEN 'images/1/000000.png' END,
           CASE WHEN NOT failed THEN 'thumbnails/1/000000.webp' END, CASE WHEN NOT failed THEN md5(number::text) END,
           CASE WHEN failed THEN 'OutOfMemoryError: CUDA out of memory' END,
           now() - interval '20 days' + job_id * interval '11 minutes',
           CASE WHEN number %% 97 = 0 THEN 1 WHEN number %% 89 = 0 THEN -1 ELSE 0 END,
           CASE WHEN number %% 500 = 0 THEN ARRAY['best'] ELSE '{}'::text[] END
    FROM (SELECT *, job_id %% 20 = 0 AND index < 3 AS failed FROM planned) planned;
INSERT INTO render_minutes (minute, worker_id, pipeline, stage, batches, images, pictures, seconds, megapixel_steps)
    SELECT minute, 'host/cuda:' || device || '/x', 'tiny', stage::stage, 4, 32, 32, 50, 400
    FROM generate_series(date_trunc('minute', now()) - interval '7 days', now(), interval '1 minute') minute,
         generate_series(0, 7) device, (VALUES ('base'), ('refiner')) stages (stage);
INSERT INTO queue_minutes (minute, pipeline, stage, waiting, running, oldest_seconds)
    SELECT minute, 'tiny', stage::stage, 200, 8, 300
    FROM generate_series(date_trunc('minute', now()) - interval '7 days', now(), interval '1 minute') minute,
         (VALUES ('base'), ('refiner')) stages (stage);
INSERT INTO activities (at, actor, action, job_id)
    SELECT now() - n * interval '1 minute', 'owner ' || n %% 7, 'job.submit', 1 + n %% %(jobs)s
    FROM generate_series(1, 20000) n;
"""
#: When the browser first painted something of the page, now or as soon as it does.
PAINTED = """() => new Promise(resolve => new PerformanceObserver(list => {
    const paint = list.getEntriesByName("first-contentful-paint")[0];
    if (paint) resolve(paint.startTime);
}).observe({ type: "paint", buffered: true }))"""
PAGES = (
    "/",
    "/?before=900",
    "/?words=job+77",
    "/jobs/1",
    "/jobs/1?after=57000",
    "/jobs/1?q=fox",
    "/jobs/1/fragments/found?q=fox",
    "/jobs/1?mark=starred",
    "/jobs/20",
    "/jobs/1/images/57000",
    "/jobs/3/grid",
    "/compare?pictures=1:0,1:50000",
    "/pictures",
    "/pictures?q=castle+glass",
    "/pictures?tag=best",
    "/workers",
    "/queues",
    "/plots?hours=168",
    "/activity",
    "/jobs/new",
    "/words",
    "/account",
    "/people",
    "/api/v1/jobs",
    "/api/v1/jobs?state=failed",
    "/api/v1/jobs/1/images?after=57000",
    "/api/v1/images?q=castle+glass",
    "/api/v1/jobs/20",
    "/api/v1/queues",
    "/api/v1/metrics?hours=24",
    "/api/v1/activities",
    "/api/v1/workers",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="of reading")
    parser.add_argument("--look", type=float, default=1.0, help="seconds for which a reader looks at a page")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    console = Console(stderr=True)
    with full_farm(options, console) as (settings, directory):
        queries = count_queries(settings)
        offset = compare_with_offset(settings)
        with running_farm(settings, directory, ["--device", "cpu"]) as farm:
            job_id = farm.client.submit(["rendered meanwhile"], images_per_prompt=5000, batch_size=4).id
            times, sizes = read_pages(farm.url, farm.token, options, console)
            paint = first_paint(farm.url, farm.token, "/jobs/1")
            rendered = farm.job(job_id)["images"]["completed"]
            farm.client.job(job_id).cancel()
    report(times, sizes, queries, paint, offset, rendered, options)


@contextmanager
def full_farm(options: argparse.Namespace, console: Console) -> Iterator[tuple[Settings, Path]]:
    """Services with a database that is full."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Others may look in: the embedded Postgres runs as a user of its own when started by root.
        directory.chmod(0o755)
        url = stack.enter_context(embedded.postgres(directory / "postgres"))
        broker = stack.enter_context(embedded.valkey(directory / "valkey"))
        settings = Settings(
            data=directory / "data", database_url=url, broker_url=broker, pipeline="tiny", port=embedded.free_port()
        )
        engine = open_database(settings)
        migrations.upgrade(engine)
        engine.dispose()
        with console.status(f"filling the database with {options.images:,} images"):
            fill(url, options)
        yield settings, directory


def fill(url: str, options: argparse.Namespace) -> None:
    numbers = {"images": options.images, "jobs": options.jobs, "large": min(LARGE_JOB, options.images // 10)}
    with psycopg.connect(url, autocommit=True) as connection:
        # Indexes are made after the rows: some twenty times faster, and the same in the end.
        indexes = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'images' AND indexname LIKE 'ix_%%'"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        with connection.transaction():
            for statement in filter(str.strip, FILL.split(";\n")):
                connection.execute(statement, numbers)
        for _, definition in indexes:
            connection.execute(definition)
        connection.execute("VACUUM ANALYZE")


def token_of(settings: Settings) -> str:
    engine = open_database(settings)
    try:
        return people.make_token(engine, people.local_user(engine).user_id, "benchmark")
    finally:
        engine.dispose()


def count_queries(settings: Settings) -> dict[str, int]:
    """Statements per page, the one that asks who asks included."""
    from dashboard.app import create_app

    client = create_app(settings).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token_of(settings)}"
    seen: list[str] = []
    event.listen(Engine, "before_cursor_execute", lambda _c, _k, statement, *_: seen.append(statement))
    counts = {}
    client.get("/healthz")
    for page in ("/api/v1/workers", *PAGES):
        seen.clear()
        answer = client.get(page)
        if answer.status_code != 200:
            raise SystemExit(f"{page} answered {answer.status_code}")
        counts[page] = len(seen)
    return counts


def compare_with_offset(settings: Settings) -> tuple[float, float]:
    """Milliseconds of the 57,000th page of pictures, by key and by OFFSET: medians of 9, in alternation."""
    columns = "SELECT i.*, b.parameters FROM images i JOIN batches b ON b.id = i.batch_id WHERE i.job_id = 1"
    rivals = {
        "key": f"{columns} AND i.index > 57000 ORDER BY i.index LIMIT 61",
        "offset": f"{columns} ORDER BY i.index LIMIT 61 OFFSET 57001",
    }
    times: dict[str, list[float]] = defaultdict(list)
    with psycopg.connect(settings.database_url or "") as connection:
        for _ in range(9):
            for name, query in rivals.items():
                started = time.perf_counter()
                connection.execute(query).fetchall()
                times[name].append(1000 * (time.perf_counter() - started))
    return statistics.median(times["key"]), statistics.median(times["offset"])


def read_pages(
    url: str, token: str, options: argparse.Namespace, console: Console
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Milliseconds of each answer, and bytes, by page."""
    times: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, int] = {}
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
        # The first reader of a page after the start pays for its template; that is no reader's everyday.
        for page in PAGES:
            client.get(page).raise_for_status()
    lock = threading.Lock()
    deadline = time.monotonic() + options.seconds

    def read(reader: int) -> None:
        pages = itertools.cycle(PAGES[reader % len(PAGES) :] + PAGES[: reader % len(PAGES)])
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
            # People look at a page for a while: these pauses are the load, and wait for nothing.
            time.sleep(options.look * reader / options.readers)
            while time.monotonic() < deadline:
                page = next(pages)
                started = time.perf_counter()
                answer = client.get(page)
                taken = 1000 * (time.perf_counter() - started)
                answer.raise_for_status()
                with lock:
                    times[page].append(taken)
                    sizes[page] = len(answer.content)
                time.sleep(options.look)

    with ThreadPoolExecutor(options.readers) as pool:
        readers = [pool.submit(read, reader) for reader in range(options.readers)]
        for reader in track(readers, "readers", console=console):
            # A reader who met an error ends the benchmark, not only its own reading.
            reader.result()
    return times, sizes


def first_paint(url: str, token: str, page: str) -> float:
    """Milliseconds until Chromium first paints content of a page, median of 5 fresh visits."""
    from chromium import launch
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for _ in range(5):
            context = browser.new_context(base_url=url, extra_http_headers={"Authorization": f"Bearer {token}"})
            tab = context.new_page()
            tab.goto(page)
            found.append(tab.evaluate(PAINTED))
            context.close()
        browser.close()
    return statistics.median(found)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def report(
    times: dict[str, list[float]],
    sizes: dict[str, int],
    queries: dict[str, int],
    paint: float,
    offset: tuple[float, float],
    rendered: int,
    options: argparse.Namespace,
) -> None:
    everything = [taken for values in times.values() for taken in values]
    rows = {
        page: {
            "median_ms": statistics.median(times[page]),
            "p99_ms": percentile(times[page], 0.99),
            "requests": len(times[page]),
            "bytes": sizes[page],
            "queries": queries[page],
        }
        for page in PAGES
    }
    by_key, by_offset = offset
    if options.json:
        summary = {"p99_ms": percentile(everything, 0.99), "first_contentful_paint_ms": paint, "rendered": rendered}
        print(json.dumps({"pages": rows, **summary, "by_key_ms": by_key, "by_offset_ms": by_offset}))
        return
    title = f"{options.images:,} images in {options.jobs:,} jobs, {options.readers} readers, a job being rendered"
    table = Table("page", "median ms", "p99 ms", "requests", "KiB", "queries", title=title)
    for page, row in rows.items():
        cells = (f"{row['median_ms']:.1f}", f"{row['p99_ms']:.1f}", str(row["requests"]), f"{row['bytes'] / 1024:.1f}")
        table.add_row(page, *cells, str(row["queries"]))
    table.add_row(
        "all", f"{statistics.median(everything):.1f}", f"{percentile(everything, 0.99):.1f}", str(len(everything))
    )
    Console().print(table)
    print(
        f"aim: p99 under {AIM_P99_MILLISECONDS} ms, at most {AIM_QUERIES} queries; most here: {max(queries.values())}"
    )
    print(f"first contentful paint of /jobs/1: {paint:.0f} ms (aim: under {AIM_PAINT_MILLISECONDS})")
    print(f"picture 57,000 of a job: {by_key:.1f} ms by key, {by_offset:.1f} ms by OFFSET, {by_offset / by_key:.1f}x")
    print(f"{rendered} pictures were rendered meanwhile")


if __name__ == "__main__":
    main()
