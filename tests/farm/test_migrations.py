"""Migrations and models must tell the same story."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

import migrations
from farm.models import Base
from farm.states import BatchState, ImageState, JobState, Stage

CHECKS = """
    SELECT conrelid::regclass::text || '.' || conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace ORDER BY 1
"""
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1"


def test_migrated_schema_equals_the_models(engine: Engine) -> None:
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        # Alembic compares neither CHECK constraints nor partial indexes: build the models' schema and compare both.
        migrated = [connection.execute(text(query)).all() for query in (CHECKS, INDEXES)]
        Base.metadata.drop_all(connection)
        Base.metadata.create_all(connection)
        assert [connection.execute(text(query)).all() for query in (CHECKS, INDEXES)] == migrated


def test_enum_types_hold_the_states(engine: Engine) -> None:
    with engine.connect() as connection:
        for name, states in {
            "job_state": JobState,
            "batch_state": BatchState,
            "image_state": ImageState,
            "stage": Stage,
        }.items():
            values = connection.execute(text(f"SELECT unnest(enum_range(NULL::{name}))::text")).scalars().all()
            assert values == [state.value for state in states]


def test_upgrading_again_changes_nothing(engine: Engine) -> None:
    migrations.upgrade(engine)


def test_downgrade_removes_everything(engine: Engine) -> None:
    migrations.downgrade(engine, "base")
    with engine.connect() as connection:
        left = connection.execute(
            text("SELECT typname FROM pg_type WHERE typname LIKE '%state' OR typname IN ('stage', 'role')")
        )
        assert left.all() == []
    migrations.upgrade(engine)
