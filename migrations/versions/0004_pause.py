"""Jobs that people paused."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(
        op.f("ck_jobs_paused_while_unfinished"), "jobs", "paused_at IS NULL OR finished_at IS NULL"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_jobs_paused_while_unfinished"), "jobs")
    op.drop_column("jobs", "paused_at")
