"""What is observed: claims that found nothing, leases that ran out, how devices are, totals that outlive their minutes,
and the trace that a job is part of.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"

STAGE = postgresql.ENUM("base", "refiner", name="stage", create_type=False)
NEW_COUNTS = ("retries", "empty_claims", "expiries")
VITALS = {
    "temperature_celsius": sa.Double(),
    "power_watts": sa.Double(),
    "ecc_errors": sa.BigInteger(),
    "xid_errors": sa.Integer(),
    "last_xid": sa.Integer(),
}


def upgrade() -> None:
    for name in NEW_COUNTS:
        op.add_column("render_minutes", sa.Column(name, sa.Integer(), server_default="0", nullable=False))
    op.create_table(
        "render_totals",
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("stage", STAGE, nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("batches", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("images", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pictures", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("seconds", sa.Double(), server_default="0", nullable=False),
        sa.Column("megapixel_steps", sa.Double(), server_default="0", nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("retries", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("empty_claims", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("expiries", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("pipeline", "stage", name=op.f("pk_render_totals")),
    )
    for name, kind in VITALS.items():
        op.add_column("workers", sa.Column(name, kind, nullable=True))
    op.add_column("jobs", sa.Column("traceparent", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "traceparent")
    for name in VITALS:
        op.drop_column("workers", name)
    op.drop_table("render_totals")
    for name in NEW_COUNTS:
        op.drop_column("render_minutes", name)
