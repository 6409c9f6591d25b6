"""Says in plain words why a queue is slow."""

from collections.abc import Callable, Iterator, Sequence

from dashboard.queries.queues import QueueView
from farm.states import Stage


def hints(queue: QueueView, queues: Sequence[QueueView], say: Callable[[float], str]) -> list[str]:
    """What holds the queue up, with the remedy where there is one; empty when nothing does. ``say`` tells durations."""
    return [*_of_workers(queue, say), *_of_tags(queue), *_of_jobs(queue, queues)]


def _of_workers(queue: QueueView, say: Callable[[float], str]) -> Iterator[str]:
    if not queue.waiting:
        return
    if queue.drained and not queue.workers:
        yield (
            "The only worker is drained: resume it."
            if queue.drained == 1
            else f"All {queue.drained} workers are drained: resume one."
        )
    elif not queue.workers:
        command = f"farm worker --pipeline {queue.pipeline} --stage {queue.stage.value}"
        yield f"No worker serves {queue.name}. Start one: {command}"
    elif not queue.idle:
        busy = "The only worker is busy" if queue.workers == 1 else f"All {queue.workers} workers are busy"
        left = queue.seconds_to_empty
        yield f"{busy}; {say(left)} of work is waiting." if left else f"{busy}."


def _of_tags(queue: QueueView) -> Iterator[str]:
    # Without workers at all another hint says so.
    if queue.workers or queue.drained:
        for requirement in queue.unmet:
            yield f"No worker has what jobs require: {requirement}. Start one that does, or cancel these jobs."


def _of_jobs(queue: QueueView, queues: Sequence[QueueView]) -> Iterator[str]:
    if queue.stage is not Stage.BASE:
        return
    refiner = next((q for q in queues if q.pipeline == queue.pipeline and q.stage is Stage.REFINER), None)
    if queue.workers and refiner is not None and refiner.waiting and not refiner.workers:
        yield f"What leaves it goes on to {refiner.name}, which no worker takes from."
    if queue.paused_jobs:
        yield "1 job is paused." if queue.paused_jobs == 1 else f"{queue.paused_jobs} jobs are paused."
    if queue.held_jobs:
        held = "1 test run holds back the rest of its job"
        yield f"{held}." if queue.held_jobs == 1 else f"{queue.held_jobs} test runs hold back the rest of their jobs."
