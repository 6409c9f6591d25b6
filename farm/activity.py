"""The activity log: who did what, written in the transaction that does it: neither is there without the other."""

from typing import Any

from sqlalchemy import Connection, insert

from farm.models import Activity


def note(connection: Connection, actor: str, action: str, job_id: int | None = None, **details: Any) -> None:
    """Record that ``actor`` did ``action`` (such as ``job.cancel``); ``details`` are what readers want to know."""
    row = {"actor": actor, "action": action, "job_id": job_id, "details": details or None}
    connection.execute(insert(Activity).values(row))
