"""The first tables: jobs, batches, images, workers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), server_default="", nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), server_default="50", nullable=False),
        sa.Column(
            "state",
            sa.Enum("queued", "running", "completed", "failed", "cancelled", name="job_state"),
            server_default="queued",
            nullable=False,
        ),
        sa.Column("spec", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("image_count", sa.Integer(), nullable=False),
        sa.Column("images_completed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("images_failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('completed', 'failed', 'cancelled'))", name=op.f("ck_jobs_finished")
        ),
        sa.CheckConstraint("state <> 'completed' OR images_failed = 0", name=op.f("ck_jobs_completed_without_failure")),
        sa.CheckConstraint("state <> 'failed' OR images_failed > 0", name=op.f("ck_jobs_failed_with_failure")),
        sa.CheckConstraint(
            "state NOT IN ('completed', 'failed') OR images_completed + images_failed = image_count",
            name=op.f("ck_jobs_all_ended"),
        ),
        sa.CheckConstraint("image_count > 0", name=op.f("ck_jobs_not_empty")),
        sa.CheckConstraint(
            "images_completed >= 0 AND images_failed >= 0 AND images_completed + images_failed <= image_count",
            name=op.f("ck_jobs_counts"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_unfinished", "jobs", ["id"], unique=False, postgresql_where=sa.text("finished_at IS NULL"))
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("process_id", sa.Integer(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("device_name", sa.Text(), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("stages", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("images_completed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_index("ix_workers_heartbeat_at", "workers", ["heartbeat_at"], unique=False)
    op.create_table(
        "batches",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("ready", "queued", "running", "completed", "failed", "split", "cancelled", name="batch_state"),
            server_default="ready",
            nullable=False,
        ),
        sa.Column("stage", sa.Enum("base", "refiner", name="stage"), server_default="base", nullable=False),
        sa.Column("parameters", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("run_after", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("latents_key", sa.Text(), nullable=True),
        sa.Column("latents_sha256", sa.Text(), nullable=True),
        sa.Column("base_seconds", sa.Double(), nullable=True),
        sa.Column("refiner_seconds", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('completed', 'failed', 'split', 'cancelled'))",
            name=op.f("ck_batches_finished"),
        ),
        sa.CheckConstraint("(state = 'queued') = (queued_at IS NOT NULL)", name=op.f("ck_batches_queued_since")),
        sa.CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_batches_leased_while_running")
        ),
        sa.CheckConstraint("state <> 'running' OR worker_id IS NOT NULL", name=op.f("ck_batches_running_on_a_worker")),
        sa.CheckConstraint(
            "state NOT IN ('ready', 'queued', 'running') OR (stage = 'refiner') = (latents_key IS NOT NULL)",
            name=op.f("ck_batches_refiner_has_latents"),
        ),
        sa.CheckConstraint(
            "(latents_key IS NULL) = (latents_sha256 IS NULL)", name=op.f("ck_batches_latents_with_hash")
        ),
        sa.CheckConstraint("attempt >= 0 AND failures >= 0", name=op.f("ck_batches_counts")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_batches_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_index(
        "ix_batches_active",
        "batches",
        ["state"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index("ix_batches_job_id", "batches", ["job_id"], unique=False)
    op.create_index(
        "ix_batches_ready", "batches", ["job_id", "id"], unique=False, postgresql_where=sa.text("state = 'ready'")
    )
    op.create_table(
        "images",
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("pending", "completed", "failed", "cancelled", name="image_state"),
            server_default="pending",
            nullable=False,
        ),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("negative_prompt", sa.Text(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("image_key", sa.Text(), nullable=True),
        sa.Column("thumbnail_key", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(error IS NOT NULL) = (state = 'failed')", name=op.f("ck_images_failed_has_reason")),
        sa.CheckConstraint("(finished_at IS NOT NULL) = (state <> 'pending')", name=op.f("ck_images_finished")),
        sa.CheckConstraint(
            "(image_key IS NOT NULL) = (state = 'completed')", name=op.f("ck_images_completed_has_picture")
        ),
        sa.CheckConstraint('"index" >= 0', name=op.f("ck_images_index")),
        sa.CheckConstraint("(image_key IS NULL) = (sha256 IS NULL)", name=op.f("ck_images_picture_with_hash")),
        sa.CheckConstraint(
            "(image_key IS NULL) = (thumbnail_key IS NULL)", name=op.f("ck_images_picture_with_thumbnail")
        ),
        sa.CheckConstraint("seed >= 0", name=op.f("ck_images_seed")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_images_batch_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_images_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "index", name=op.f("pk_images")),
    )
    op.create_index("ix_images_batch_id", "images", ["batch_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_images_batch_id", table_name="images")
    op.drop_table("images")
    op.drop_index("ix_batches_ready", table_name="batches", postgresql_where=sa.text("state = 'ready'"))
    op.drop_index("ix_batches_job_id", table_name="batches")
    op.drop_index("ix_batches_active", table_name="batches", postgresql_where=sa.text("state IN ('queued', 'running')"))
    op.drop_table("batches")
    op.drop_index("ix_workers_heartbeat_at", table_name="workers")
    op.drop_table("workers")
    op.drop_index("ix_jobs_unfinished", table_name="jobs", postgresql_where=sa.text("finished_at IS NULL"))
    op.drop_table("jobs")
    for name in ("stage", "image_state", "batch_state", "job_state"):
        op.execute(f"DROP TYPE {name}")
