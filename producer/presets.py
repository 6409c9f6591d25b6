"""Presets: the fields of a job under a name, for their owner or for everybody."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Engine, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from farm.activity import note
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from farm.models import Preset
from producer.expand import SPEC_FIELDS
from producer.intake import ALIASES

MAX_NAME_CHARACTERS = 80
MAX_FIELDS_CHARACTERS = 200_000
#: What the form knows beside a job's fields.
FORM_ALONE = ("refiner", "each_picture")
_MAX_ID = 2**63 - 1
#: Presets that one person may have.
MAX_PRESETS = 200


def save_preset(engine: Engine, owner: str, name: str, fields: Mapping[str, str], *, shared: bool = False) -> int:
    """Store a preset in place of the owner's of this name; returns its number. Raises InvalidSubmissionError.

    ``fields`` are those of a job, and of its form, as text.
    """
    name = name.strip()
    for field in fields:
        if field not in (*SPEC_FIELDS, *FORM_ALONE):
            raise _refusal("fields", f"{field[:60]!r} is no field of a job; leave it out")
    fields = {ALIASES.get(field, field): value for field, value in fields.items()}
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        raise _refusal("preset_name", f"must have 1 to {MAX_NAME_CHARACTERS} printable characters")
    if not fields:
        raise _refusal("preset_name", "would stand for nothing; fill in a field first")
    if any("\0" in value for value in fields.values()):
        raise _refusal("preset_name", "cannot keep a NUL character; remove it")
    if sum(map(len, fields.values())) > MAX_FIELDS_CHARACTERS:
        raise _refusal("preset_name", f"would hold more than {MAX_FIELDS_CHARACTERS:,} characters; shorten its fields")
    row = {"owner": owner, "name": name, "shared": shared, "fields": dict(fields)}
    with engine.begin() as connection:
        others = connection.scalar(
            select(func.count()).select_from(Preset).where(Preset.owner == owner, Preset.name != name)
        )
        if (others or 0) >= MAX_PRESETS:
            raise _refusal("preset_name", f"is one too many: you have {MAX_PRESETS} presets; delete one first")
        preset_id = connection.execute(
            insert(Preset)
            .values(row)
            .on_conflict_do_update(
                index_elements=["owner", "name"],
                set_={"shared": shared, "fields": dict(fields), "updated_at": func.now()},
            )
            .returning(Preset.id)
        ).scalar_one()
        note(connection, owner, "preset.save", preset=name, shared=shared)
    return preset_id


def presets_of(engine: Engine, owner: str) -> Sequence[Preset]:
    """The owner's presets, and those that others share, by name."""
    query = select(Preset).where(_visible(owner)).order_by(func.lower(Preset.name), Preset.id)
    with Session(engine, expire_on_commit=False) as session:
        return session.scalars(query).all()


def get_preset(engine: Engine, preset_id: int, owner: str) -> Preset:
    """A preset that this owner sees; raises NotFoundError."""
    query = select(Preset).where(Preset.id == min(preset_id, _MAX_ID), _visible(owner))
    with Session(engine, expire_on_commit=False) as session:
        preset = session.scalar(query)
    if preset is None:
        raise NotFoundError(f"There is no preset {preset_id}.")
    return preset


def delete_preset(engine: Engine, preset_id: int, by: str) -> None:
    """Remove a preset, whoever's it is: who may, is for the caller to ask. Raises NotFoundError."""
    with engine.begin() as connection:
        name = connection.scalar(delete(Preset).where(Preset.id == preset_id).returning(Preset.name))
        if name is None:
            raise NotFoundError(f"There is no preset {preset_id}.")
        note(connection, by, "preset.delete", preset=name)


def _visible(owner: str) -> ColumnElement[bool]:
    return or_(Preset.owner == owner, Preset.shared)


def _refusal(field: str, message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem(field, message)])
