"""Scheduling: shares of owners, what jobs wait for and require, what workers offer and are told to serve."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "shares",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.CheckConstraint("weight > 0 AND weight <= 1000", name=op.f("ck_shares_weight")),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_shares")),
    )
    op.add_column("jobs", sa.Column("after_job_id", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("requires", sa.Text(), server_default="", nullable=False))
    op.add_column("jobs", sa.Column("max_devices", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("deadline", sa.DateTime(timezone=True), nullable=True))
    op.create_foreign_key(
        op.f("fk_jobs_after_job_id_jobs"), "jobs", "jobs", ["after_job_id"], ["id"], ondelete="SET NULL"
    )
    op.create_check_constraint(op.f("ck_jobs_max_devices"), "jobs", "max_devices > 0")
    op.create_index(
        "ix_jobs_after_job_id", "jobs", ["after_job_id"], postgresql_where=sa.text("after_job_id IS NOT NULL")
    )
    for name in ("tags", "flexible", "could_serve"):
        op.add_column("workers", sa.Column(name, postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False))
    op.add_column("workers", sa.Column("resting", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("workers", sa.Column("wanted_pipeline", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("wanted_stages", postgresql.ARRAY(sa.Text()), nullable=True))
    op.add_column("workers", sa.Column("load_seconds", sa.Double(), nullable=True))


def downgrade() -> None:
    for name in ("load_seconds", "wanted_stages", "wanted_pipeline", "resting", "could_serve", "flexible", "tags"):
        op.drop_column("workers", name)
    op.drop_index("ix_jobs_after_job_id", table_name="jobs", postgresql_where=sa.text("after_job_id IS NOT NULL"))
    op.drop_constraint(op.f("ck_jobs_max_devices"), "jobs", type_="check")
    op.drop_constraint(op.f("fk_jobs_after_job_id_jobs"), "jobs", type_="foreignkey")
    for name in ("deadline", "max_devices", "requires", "after_job_id"):
        op.drop_column("jobs", name)
    op.drop_table("shares")
