"""How much of the farm each owner gets beside others, while several have work: a weight, 1 unless it was set."""

from dataclasses import dataclass

from sqlalchemy import Engine, delete, select
from sqlalchemy.dialects.postgresql import insert

from farm.activity import note
from farm.database import wake_producer
from farm.models import Share

#: What counts for an owner of whom nothing was said.
DEFAULT_WEIGHT = 1.0


@dataclass(frozen=True, slots=True)
class OwnerShare:
    """An owner's weight."""

    owner: str
    weight: float


def list_shares(engine: Engine) -> list[OwnerShare]:
    """Those that were set, by owner."""
    with engine.connect() as connection:
        rows = connection.execute(select(Share.owner, Share.weight).order_by(Share.owner))
        return [OwnerShare(owner, weight) for owner, weight in rows]


def set_share(engine: Engine, owner: str, weight: float, by: str = "") -> None:
    """Give an owner this weight (above 0, at most 1000); 1 is that of all of whom nothing was said."""
    with engine.begin() as connection:
        if weight == DEFAULT_WEIGHT:
            connection.execute(delete(Share).where(Share.owner == owner))
        else:
            statement = insert(Share).values(owner=owner, weight=weight)
            connection.execute(statement.on_conflict_do_update(index_elements=["owner"], set_={"weight": weight}))
        note(connection, by, "share.set", owner=owner, weight=weight)
        wake_producer(connection)
