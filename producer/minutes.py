"""How much waits, written down once a minute by the producer that leads; plots of the last week are drawn from it.

Minutes are forgotten after that; what they counted stays in totals.
"""

from datetime import timedelta

from sqlalchemy import Engine, delete, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert

from farm.minutes import COUNTS, totals_until
from farm.models import QueueMinute, RenderMinute, RenderTotal
from farm.queues import count_queues, served_queues

#: Minutes of rendering and queueing are kept for so long: a week can be looked at, and what is older is gone.
KEPT = timedelta(days=8)
#: Minutes of rendering change no more once they are so old.
SETTLED = timedelta(hours=1)


def record_queues(engine: Engine, lease_seconds: float) -> int:
    """Write down the current minute, one row per queue that has work or a live worker; returns how many.

    A minute that is there is written anew: a second leader within the same minute is no error.
    """
    with engine.begin() as connection:
        idle = {"waiting": 0, "running": 0, "oldest_seconds": 0.0}
        rows = dict.fromkeys(served_queues(connection, lease_seconds), idle)
        for queue in count_queues(connection):
            rows[queue.pipeline, queue.stage] = {
                "waiting": queue.waiting,
                "running": queue.running,
                "oldest_seconds": queue.oldest_seconds,
            }
        if not rows:
            return 0
        minute = func.date_trunc("minute", func.now())
        statement = insert(QueueMinute).values(
            [
                {"minute": minute, "pipeline": pipeline, "stage": stage, **counts}
                for (pipeline, stage), counts in rows.items()
            ]
        )
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["minute", "pipeline", "stage"], set_={name: statement.excluded[name] for name in idle}
            )
        )
    return len(rows)


def add_up_minutes(engine: Engine) -> int:
    """Add what ended a while ago to the totals that counters are read from; returns how many queues there are.

    Minutes of the last hour are left: a transaction that began in one may still write to it, and none lasts so long.
    """
    with engine.begin() as connection:
        # A second leader waits here, and then finds nothing left to add.
        connection.execute(text("LOCK TABLE render_totals IN SHARE ROW EXCLUSIVE MODE"))
        until = connection.scalar(select(func.date_trunc("minute", func.now()) - SETTLED))
        added = insert(RenderTotal).from_select(
            ["pipeline", "stage", "until", *COUNTS],
            select(
                RenderMinute.pipeline,
                RenderMinute.stage,
                literal(until),
                *(func.sum(getattr(RenderMinute, name)) for name in COUNTS),
            )
            .where(RenderMinute.minute < until, RenderMinute.minute >= totals_until())
            .group_by(RenderMinute.pipeline, RenderMinute.stage),
        )
        connection.execute(
            added.on_conflict_do_update(
                index_elements=["pipeline", "stage"],
                set_={name: getattr(RenderTotal, name) + added.excluded[name] for name in COUNTS},
            )
        )
        return connection.execute(update(RenderTotal).values(until=until)).rowcount


def forget_old_minutes(engine: Engine) -> int:
    """Delete minutes that are older than anybody can look at; returns how many."""
    with engine.begin() as connection:
        return sum(
            connection.execute(delete(table).where(table.minute < func.now() - KEPT)).rowcount
            for table in (RenderMinute, QueueMinute)
        )
