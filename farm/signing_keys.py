"""Keys that all processes of the farm sign with: made by the first that needs one, the same for all from then on."""

import secrets

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from farm.errors import NotFoundError
from farm.models import Secret

_BYTES = 32


def signing_key(engine: Engine, name: str, *, make: bool = True) -> str:
    """The key of this name. Raises NotFoundError if there is none yet and none shall be made."""
    query = select(Secret.value).where(Secret.name == name)
    with engine.begin() as connection:
        known = connection.scalar(query)
        if known is not None:
            return known
        if not make:
            raise NotFoundError(f"Nothing was signed for {name} yet.")
        made = {"name": name, "value": secrets.token_urlsafe(_BYTES)}
        connection.execute(insert(Secret).values(made).on_conflict_do_nothing())
        # Another process may have been faster.
        return connection.execute(query).scalar_one()
