"""What the dashboard shows and keeps: marks, presets, test runs, minutes of rendering and queueing."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"

STAGE = postgresql.ENUM("base", "refiner", name="stage", create_type=False)


def upgrade() -> None:
    op.create_table(
        "presets",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("shared", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("fields", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_presets")),
        sa.UniqueConstraint("owner", "name", name=op.f("uq_presets_owner_name")),
    )
    op.create_table(
        "queue_minutes",
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("stage", STAGE, nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("oldest_seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("minute", "pipeline", "stage", name=op.f("pk_queue_minutes")),
    )
    op.create_table(
        "render_minutes",
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("stage", STAGE, nullable=False),
        sa.Column("batches", sa.Integer(), server_default="0", nullable=False),
        sa.Column("images", sa.Integer(), server_default="0", nullable=False),
        sa.Column("pictures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("seconds", sa.Double(), server_default="0", nullable=False),
        sa.Column("megapixel_steps", sa.Double(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("minute", "worker_id", "pipeline", "stage", name=op.f("pk_render_minutes")),
    )
    op.add_column("batches", sa.Column("held", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("images", sa.Column("rating", sa.SmallInteger(), server_default="0", nullable=False))
    op.create_check_constraint(op.f("ck_images_rating"), "images", "rating BETWEEN -1 AND 1")
    op.add_column("images", sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False))
    op.create_check_constraint(op.f("ck_images_tag_count"), "images", "cardinality(tags) <= 20")
    op.create_index(
        "ix_images_completed",
        "images",
        ["job_id", "index"],
        unique=False,
        postgresql_where=sa.text("state = 'completed'"),
    )
    op.create_index("ix_images_seed", "images", ["seed"], unique=False)
    op.create_index(
        "ix_images_ended",
        "images",
        ["job_id", "finished_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_images_failed", "images", ["job_id", "index"], unique=False, postgresql_where=sa.text("state = 'failed'")
    )
    words = sa.Computed("to_tsvector('simple', prompt)", persisted=True)
    op.add_column("images", sa.Column("words", postgresql.TSVECTOR(), words, nullable=False))
    op.create_index("ix_images_words", "images", ["words"], unique=False, postgresql_using="gin")
    op.create_index(
        "ix_images_rated", "images", ["job_id", "index"], unique=False, postgresql_where=sa.text("rating <> 0")
    )
    op.create_index(
        "ix_images_tagged", "images", ["job_id", "index"], unique=False, postgresql_where=sa.text("tags <> '{}'")
    )
    op.create_index(
        "ix_images_tags",
        "images",
        ["tags"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("tags <> '{}'"),
    )
    op.add_column("jobs", sa.Column("test_images", sa.Integer(), nullable=True))
    op.add_column("workers", sa.Column("draining_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("workers", sa.Column("restarts", sa.Integer(), server_default="0", nullable=False))
    op.add_column("workers", sa.Column("memory_used", sa.BigInteger(), nullable=True))
    op.add_column("workers", sa.Column("memory_total", sa.BigInteger(), nullable=True))
    op.add_column("workers", sa.Column("utilisation", sa.Double(), nullable=True))
    op.drop_index("ix_batches_ready", table_name="batches")
    op.create_index(
        "ix_batches_ready", "batches", ["job_id", "id"], postgresql_where=sa.text("state = 'ready' AND NOT held")
    )


def downgrade() -> None:
    op.drop_index("ix_batches_ready", table_name="batches")
    op.create_index("ix_batches_ready", "batches", ["job_id", "id"], postgresql_where=sa.text("state = 'ready'"))
    op.drop_column("workers", "utilisation")
    op.drop_column("workers", "memory_total")
    op.drop_column("workers", "memory_used")
    op.drop_column("workers", "restarts")
    op.drop_column("workers", "draining_at")
    op.drop_column("jobs", "test_images")
    op.drop_index(
        "ix_images_tags", table_name="images", postgresql_using="gin", postgresql_where=sa.text("tags <> '{}'")
    )
    op.drop_index("ix_images_tagged", table_name="images", postgresql_where=sa.text("tags <> '{}'"))
    op.drop_index("ix_images_rated", table_name="images", postgresql_where=sa.text("rating <> 0"))
    op.drop_index("ix_images_words", table_name="images", postgresql_using="gin")
    op.drop_column("images", "words")
    op.drop_index("ix_images_failed", table_name="images", postgresql_where=sa.text("state = 'failed'"))
    op.drop_index("ix_images_ended", table_name="images", postgresql_where=sa.text("finished_at IS NOT NULL"))
    op.drop_index("ix_images_seed", table_name="images")
    op.drop_index("ix_images_completed", table_name="images", postgresql_where=sa.text("state = 'completed'"))
    op.drop_constraint(op.f("ck_images_tag_count"), "images")
    op.drop_column("images", "tags")
    op.drop_constraint(op.f("ck_images_rating"), "images")
    op.drop_column("images", "rating")
    op.drop_column("batches", "held")
    op.drop_table("render_minutes")
    op.drop_table("queue_minutes")
    op.drop_table("presets")
