"""What was rendered, minute by minute and worker by worker: from these rows come rates, durations and estimates.

They are written inside the transaction that ends a stage, as its last write: a stale attempt adds nothing, and no two
transactions can wait for each other's minutes.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.sql.elements import ColumnElement

from farm import schedule
from farm.models import RenderMinute, RenderTotal
from farm.spec import SharedParameters
from farm.states import Stage

#: What is counted, in minutes and in totals alike.
COUNTS = (
    "batches",
    "images",
    "pictures",
    "seconds",
    "megapixel_steps",
    "failures",
    "retries",
    "expiries",
    "empty_claims",
)


def stage_steps(shared: SharedParameters, stage: Stage) -> int:
    """Denoising steps that the stage does for each image of a batch. Steps of second order count once."""
    if stage is Stage.REFINER and shared.refiner_strength is not None:
        return int((shared.refiner_steps or shared.num_inference_steps) * shared.refiner_strength)
    if shared.timesteps is not None:
        visited = [float(timestep) for timestep in shared.timesteps]
    elif shared.sigmas is not None:
        visited = schedule.timesteps_of_sigmas(shared.sigmas)
    else:
        visited = schedule.timesteps(shared.num_inference_steps, shared.scheduler_entry, shared.scheduler_options)
    if stage is Stage.REFINER:
        return 0 if shared.refiner_split is None else schedule.split_at(visited, shared.refiner_split)[1]
    left = visited if shared.strength is None else schedule.after_strength(visited, shared.strength)
    return len(left) if shared.refiner_split is None else schedule.split_at(left, shared.refiner_split)[0]


def megapixel_steps(shared: SharedParameters, stage: Stage) -> float:
    """The denoising of one image in the stage: its megapixels times its steps, as good a unit of work as any."""
    return shared.width * shared.height / 1e6 * stage_steps(shared, stage)


def note_stage(
    connection: Connection,
    worker_id: str | None,
    stage: Stage,
    parameters: Mapping[str, Any],
    *,
    images: int,
    seconds: float,
    finished: bool,
) -> None:
    """Add up a stage of a batch that ended well. ``seconds`` are the device's; ``finished`` when pictures came of it.

    ``parameters`` are the batch's, as they are stored.
    """
    shared = SharedParameters.model_validate(parameters)
    _add(
        connection,
        worker_id,
        shared.pipeline,
        stage,
        batches=1,
        images=images,
        pictures=images if finished else 0,
        seconds=seconds,
        megapixel_steps=images * megapixel_steps(shared, stage),
    )


def note_failure(
    connection: Connection, worker_id: str | None, pipeline: str, stage: Stage, *, retried: bool, expired: bool
) -> None:
    """Count a failed attempt for the worker that held it; ``expired`` when its lease ran out."""
    _add(connection, worker_id, pipeline, stage, failures=1, retries=int(retried), expiries=int(expired))


def note_empty_claim(engine: Engine, worker_id: str, pipeline: str, stage: Stage) -> None:
    """Count a message that found nothing to claim: no transaction of a batch ended with it."""
    with engine.begin() as connection:
        _add(connection, worker_id, pipeline, stage, empty_claims=1)


def totals_until() -> ColumnElement[datetime]:
    """Up to when minutes are in the totals (``RenderTotal``); those from then on must be added to them."""
    latest = select(func.max(RenderTotal.until)).scalar_subquery()
    return func.coalesce(latest, text("'-infinity'::timestamptz"))


def _add(connection: Connection, worker_id: str | None, pipeline: str, stage: Stage, **counts: float) -> None:
    row = {"worker_id": worker_id or "", "pipeline": pipeline, "stage": stage, **counts}
    connection.execute(_adding(tuple(counts)), row)


@cache
def _adding(names: tuple[str, ...]) -> Insert:
    """The statement that adds counts of these names."""
    values: dict[str, Any] = {name: bindparam(name) for name in ("worker_id", "pipeline", "stage", *names)}
    statement = insert(RenderMinute).values(minute=func.date_trunc("minute", func.now()), **values)
    columns = RenderMinute.__table__.c
    return statement.on_conflict_do_update(
        index_elements=["minute", "worker_id", "pipeline", "stage"],
        set_={name: columns[name] + statement.excluded[name] for name in COUNTS if name in names},
    )
