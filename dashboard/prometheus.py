"""``/metrics``: the farm for Prometheus. docs/metrics.md tells of every metric."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flask import Flask, Response, request
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from typing_extensions import override

from dashboard.auth import public
from dashboard.context import context
from dashboard.queries.observation import WORKER_STATES, Observation, Queue, SeenWorker, observe
from farm import __version__
from farm.models import Worker
from farm.queues import QueueCount
from farm.settings import Settings
from farm.states import BatchState

PATH = "/metrics"
#: Several servers that scrape at once look once.
KEPT_SECONDS = 2.0

_QUEUE = ("pipeline", "stage")
_WORKER = ("worker", "hostname", "device")
_WAITING_STATES = (BatchState.READY, BatchState.QUEUED, BatchState.RUNNING)

#: What is told of each queue.
_QUEUE_GAUGES: dict[str, tuple[str, Callable[[QueueCount], float]]] = {
    "farm_queue_waiting_batches": ("Batches that could begin.", lambda queue: queue.waiting),
    "farm_queue_running_batches": ("Batches that are being rendered.", lambda queue: queue.running),
    "farm_queue_oldest_seconds": ("Age of the batch that waits longest.", lambda queue: queue.oldest_seconds),
}
#: What ever happened in each queue, by the count that tells it.
_QUEUE_COUNTERS = {
    "batches": ("farm_rendered_batches", "Stages of batches that ended well."),
    "images": ("farm_rendered_images", "Images whose stage ended well."),
    "pictures": ("farm_finished_pictures", "Images that were finished with the stage."),
    "seconds": ("farm_render_seconds", "Time of devices for the images whose stage ended well."),
    "megapixel_steps": ("farm_megapixel_steps", "Megapixels of those images, times their denoising steps."),
    "failures": ("farm_failed_attempts", "Attempts that failed."),
    "retries": ("farm_retried_attempts", "Failed attempts whose batch was put back in line as it was."),
    "expiries": ("farm_expired_leases", "Failed attempts whose worker stopped answering."),
    "empty_claims": ("farm_empty_claims", "Messages whose batch was not there to be claimed."),
}
#: What workers report of themselves and of their devices.
_WORKER_GAUGES: dict[str, tuple[str, Callable[[Worker], float | None]]] = {
    "farm_worker_restarts": ("How often its supervisor had to start it again.", lambda worker: worker.restarts),
    "farm_device_memory_used_bytes": ("Memory of the device that is taken.", lambda worker: worker.memory_used),
    "farm_device_memory_total_bytes": ("Memory of the device.", lambda worker: worker.memory_total),
    "farm_device_utilisation_ratio": ("Share of the time that it computes.", lambda worker: worker.utilisation),
    "farm_device_temperature_celsius": ("Temperature of the GPU.", lambda worker: worker.temperature_celsius),
    "farm_device_power_watts": ("What the GPU draws.", lambda worker: worker.power_watts),
    "farm_device_last_xid": ("Number of the latest critical error.", lambda worker: worker.last_xid),
}
_WORKER_COUNTERS: dict[str, tuple[str, Callable[[Worker], float | None]]] = {
    "farm_worker_pictures": ("Pictures that it finished.", lambda worker: worker.images_completed),
    "farm_device_ecc_errors": ("Memory errors that could not be corrected.", lambda worker: worker.ecc_errors),
    "farm_device_xid_errors": ("Critical errors that the driver told of.", lambda worker: worker.xid_errors),
}


class FarmCollector(Collector):
    """What was observed, as metrics. Nothing is counted in this process: there may be any number of them."""

    def __init__(self, seen: Observation) -> None:
        self._seen = seen

    @override
    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("farm_build", "The version that answers.", {"version": __version__})
        yield from self._of_queues()
        yield from self._of_workers()
        yield _by_state("farm_jobs", "Jobs, those that have ended included.", self._seen.jobs)
        yield _by_state("farm_images", "Images of all jobs.", self._seen.images)
        for name, told, value in (
            ("farm_leading_producers", "Producers that lead: one, or the farm stands still.", self._seen.leaders),
            ("farm_doomed_objects", "Objects of deleted jobs that are still in the store.", self._seen.doomed_objects),
            ("farm_database_bytes", "Size of the database.", self._seen.database_bytes),
        ):
            yield GaugeMetricFamily(name, told, value)

    def _of_queues(self) -> Iterator[Metric]:
        for name, (told, value) in _QUEUE_GAUGES.items():
            gauge = GaugeMetricFamily(name, told, labels=_QUEUE)
            for key, queue in self._seen.queues.items():
                gauge.add_metric(_labels(key), value(queue))
            yield gauge
        batches = GaugeMetricFamily("farm_batches", "Batches that have not ended.", labels=(*_QUEUE, "state"))
        for key in self._seen.queues.keys() | {key for key, _ in self._seen.batches}:
            for state in _WAITING_STATES:
                batches.add_metric((*_labels(key), state.value), self._seen.batches.get((key, state), 0))
        yield batches
        for count, (name, told) in _QUEUE_COUNTERS.items():
            counter = CounterMetricFamily(name, told, labels=_QUEUE)
            for key, counts in self._seen.totals.items():
                counter.add_metric(_labels(key), counts[count])
            yield counter

    def _of_workers(self) -> Iterator[Metric]:
        numbers = Counter(
            (seen.worker.pipeline, stage, seen.state) for seen in self._seen.workers for stage in seen.worker.stages
        )
        workers = GaugeMetricFamily("farm_workers", "Workers that serve a stage.", labels=(*_QUEUE, "state"))
        for pipeline, stage in {_labels(key) for key in self._seen.queues} | {key[:2] for key in numbers}:
            for state in WORKER_STATES:
                workers.add_metric((pipeline, stage, state), numbers[pipeline, stage, state])
        yield workers
        info = InfoMetricFamily("farm_worker", "Who a worker is.", labels=_WORKER)
        age = GaugeMetricFamily("farm_worker_heartbeat_age_seconds", "Since it last reported.", labels=_WORKER)
        for seen in self._seen.workers:
            info.add_metric(_names(seen.worker), _described(seen))
            age.add_metric(_names(seen.worker), seen.heartbeat_age_seconds)
        yield from (info, age)
        # What the dead last said of their devices is no news.
        living = [seen.worker for seen in self._seen.workers if seen.state != "lost"]
        for family, readings in ((GaugeMetricFamily, _WORKER_GAUGES), (CounterMetricFamily, _WORKER_COUNTERS)):
            for name, (told, read) in readings.items():
                metric = family(name, told, labels=_WORKER)
                for worker in living:
                    value = read(worker)
                    if value is not None:
                        metric.add_metric(_names(worker), value)
                yield metric


def register_prometheus(app: Flask, settings: Settings) -> None:
    """Add the route: for whoever may look, or for everybody if the settings say so."""

    def metrics() -> Response:
        """The farm in numbers, in Prometheus' text format or OpenMetrics."""
        farm = context()
        seen = farm.shared.get(
            "observation", lambda _before: observe(farm.engine, farm.settings.lease_seconds), KEPT_SECONDS
        )
        registry = CollectorRegistry(auto_describe=False)
        registry.register(FarmCollector(seen))
        encode, media_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=media_type)

    app.add_url_rule(PATH, "prometheus.metrics", public(metrics) if settings.metrics_public else metrics)


def _labels(queue: Queue) -> tuple[str, str]:
    return queue[0], queue[1].value


def _names(worker: Worker) -> tuple[str, str, str]:
    return worker.id, worker.hostname, worker.device


def _described(seen: SeenWorker) -> dict[str, str]:
    worker = seen.worker
    return {
        "pipeline": worker.pipeline,
        "stages": ",".join(worker.stages),
        "device_name": worker.device_name,
        "state": seen.state,
    }


def _by_state(name: str, told: str, counts: Mapping[Any, int]) -> Metric:
    gauge = GaugeMetricFamily(name, told, labels=["state"])
    for state, count in counts.items():
        gauge.add_metric([state.value], count)
    return gauge
