"""Alembic's entry: runs migrations on the connection that ``migrations.upgrade`` hands over."""

from alembic import context
from sqlalchemy import text

from farm.models import Base

#: Key of the advisory lock under which migrations run, one process at a time ("migr" in ASCII).
MIGRATION_LOCK = 0x6D696772

connection = context.config.attributes["connection"]
connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True, compare_server_default=True)
context.run_migrations()
