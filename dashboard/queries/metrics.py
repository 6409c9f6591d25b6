"""How the farm did over the last hour, day or week, in steps of time: what plots and their tables show."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, cast, func, select
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.sql.elements import ColumnElement

from farm.models import QueueMinute, RenderMinute
from farm.states import Stage

#: Hours that can be looked at, with the minutes of a step: so that no plot has more than 360 points, and no table
#: more than people read.
PLOT_STEPS = {1: 1, 24: 5, 168: 30}
TABLE_STEPS = {1: 5, 24: 60, 168: 12 * 60}
#: A rate over less time than this says nothing.
MIN_MINUTES = 0.25


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of time."""

    start: datetime
    pictures_per_minute: float
    waiting: dict[Stage, float | None]
    """Batches, on average over the step; None when nobody wrote it down."""
    seconds_per_image: dict[Stage, float | None]
    """None when the stage rendered nothing."""
    failures: int


def kept_seconds(hours: int) -> float:
    """For how long the numbers may be shown again: of the last hour they are always new."""
    return 0.0 if hours == 1 else 15.0


def metrics(engine: Engine, hours: int, step_minutes: int) -> list[Moment]:
    """The last ``hours`` in steps, without gaps, the present step last. Four queries."""
    step = timedelta(minutes=step_minutes)
    with engine.connect() as connection:
        now, present = connection.execute(select(func.now(), _bin(func.now(), step))).one()
        starts = [present - place * step for place in reversed(range(60 * hours // step_minutes))]
        rendered = connection.execute(
            select(
                _bin(RenderMinute.minute, step).label("start"),
                RenderMinute.stage,
                func.sum(RenderMinute.images).label("images"),
                func.sum(RenderMinute.pictures).label("pictures"),
                func.sum(RenderMinute.seconds).label("seconds"),
                func.sum(RenderMinute.failures).label("failures"),
            )
            .where(RenderMinute.minute >= starts[0])
            .group_by("start", RenderMinute.stage)
        ).all()
        per_minute = (
            select(QueueMinute.minute, QueueMinute.stage, func.sum(QueueMinute.waiting).label("waiting"))
            .where(QueueMinute.minute >= starts[0])
            .group_by(QueueMinute.minute, QueueMinute.stage)
            .subquery()
        )
        queued = connection.execute(
            select(
                _bin(per_minute.c.minute, step).label("start"),
                per_minute.c.stage,
                func.sum(per_minute.c.waiting).label("waiting"),
            ).group_by("start", per_minute.c.stage)
        ).all()
        written = connection.execute(
            select(_bin(QueueMinute.minute, step).label("start"), func.count(QueueMinute.minute.distinct()))
            .where(QueueMinute.minute >= starts[0])
            .group_by("start")
        )
        minutes = {start: count for start, count in written}  # noqa: C416 - rows are tuples, to the type checker too
    by_stage = {(row.start, row.stage): row for row in rendered}
    depth = {(row.start, row.stage): float(row.waiting) for row in queued}
    # The present step has only begun: a rate is one of the time that has passed.
    passed = {start: float(step_minutes) for start in starts}
    passed[present] = max((now - present).total_seconds() / 60, MIN_MINUTES)
    return [_moment(start, passed[start], by_stage, depth, minutes.get(start, 0)) for start in starts]


def _moment(
    start: datetime,
    passed_minutes: float,
    rendered: dict[tuple[datetime, Stage], Any],
    depth: dict[tuple[datetime, Stage], float],
    minutes: int,
) -> Moment:
    rows = {stage: rendered.get((start, stage)) for stage in Stage}
    there = [row for row in rows.values() if row is not None]
    return Moment(
        start=start,
        pictures_per_minute=sum(row.pictures for row in there) / passed_minutes,
        waiting={stage: depth.get((start, stage), 0.0) / minutes if minutes else None for stage in Stage},
        seconds_per_image={
            stage: row.seconds / row.images if row and row.images else None for stage, row in rows.items()
        },
        failures=sum(row.failures for row in there),
    )


def _bin(moment: Any, step: timedelta) -> ColumnElement[datetime]:
    """The step that a time falls into; days begin at midnight UTC."""
    return func.date_bin(cast(step, INTERVAL), moment, func.to_timestamp(0), type_=QueueMinute.minute.type)
