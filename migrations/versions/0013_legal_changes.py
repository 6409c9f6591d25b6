"""The database refuses changes of state that ``farm.states`` does not know; workers say what made them end."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

LEGAL = {
    "jobs": (
        ("queued", "running"),
        ("queued", "cancelled"),
        ("running", "completed"),
        ("running", "failed"),
        ("running", "cancelled"),
        ("completed", "running"),
        ("failed", "running"),
    ),
    "batches": (
        ("ready", "queued"),
        ("ready", "running"),
        ("ready", "failed"),
        ("ready", "cancelled"),
        ("queued", "running"),
        ("queued", "ready"),
        ("queued", "failed"),
        ("queued", "cancelled"),
        ("running", "completed"),
        ("running", "queued"),
        ("running", "ready"),
        ("running", "failed"),
        ("running", "split"),
        ("running", "cancelled"),
        ("failed", "ready"),
    ),
    "images": (
        ("pending", "completed"),
        ("pending", "failed"),
        ("pending", "cancelled"),
        ("failed", "pending"),
        ("completed", "pending"),
    ),
}


def upgrade() -> None:
    op.add_column("workers", sa.Column("stopped_because", sa.Text()))
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'illegal change of %: from % to %', TG_TABLE_NAME, to_jsonb(OLD) -> TG_ARGV[0],
                to_jsonb(NEW) -> TG_ARGV[0] USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
        END
        $$
        """
    )
    # A condition of its own is evaluated without a call: legal changes cost next to nothing.
    for table, changes in LEGAL.items():
        legal = ", ".join(f"('{old}', '{new}')" for old, new in changes)
        illegal = f"OLD.state <> NEW.state AND (OLD.state::text, NEW.state::text) NOT IN ({legal})"
        if table == "images":
            illegal = f"({illegal}) OR (OLD.state = 'completed' AND NEW.state = 'pending' AND OLD.removed_at IS NULL)"
        op.execute(
            f"CREATE TRIGGER tr_{table}_legal_change BEFORE UPDATE OF state ON {table} FOR EACH ROW WHEN ({illegal}) "
            f"EXECUTE FUNCTION refuse_change('state')"
        )
    op.execute(
        "CREATE TRIGGER tr_batches_attempt_forward BEFORE UPDATE OF attempt ON batches FOR EACH ROW "
        "WHEN (NEW.attempt < OLD.attempt) EXECUTE FUNCTION refuse_change('attempt')"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER tr_batches_attempt_forward ON batches")
    for table in LEGAL:
        op.execute(f"DROP TRIGGER tr_{table}_legal_change ON {table}")
    op.execute("DROP FUNCTION refuse_change")
    op.drop_column("workers", "stopped_because")
