"""What is kept, and how long: policies, removed pictures, sizes of pictures, inputs by the jobs that name them."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

#: Parameters of an image that name pictures; ``control_image`` is a list.
REFERENCES = """
    INSERT INTO job_inputs (job_id, sha256)
    SELECT DISTINCT images.job_id, inputs.sha256
    FROM images
    CROSS JOIN LATERAL jsonb_path_query(images.parameters, '$.keyvalue() ? (@.key != "prompt_2"
        && @.key != "negative_prompt_2").value') AS named
    CROSS JOIN LATERAL jsonb_path_query(named, 'lax $[*]') AS one
    JOIN inputs ON 'sha256:' || inputs.sha256 = one #>> '{}'
    WHERE images.parameters IS NOT NULL
"""


def upgrade() -> None:
    op.create_table(
        "retention_policies",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("keep_days", sa.Integer(), nullable=True),
        sa.Column("keep_starred", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("max_bytes", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("keep_days >= 1", name=op.f("ck_retention_policies_keep_days")),
        sa.CheckConstraint("max_bytes >= 0", name=op.f("ck_retention_policies_max_bytes")),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_retention_policies")),
    )
    op.create_table(
        "job_inputs",
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_inputs_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["sha256"], ["inputs.sha256"], name=op.f("fk_job_inputs_sha256")),
        sa.PrimaryKeyConstraint("job_id", "sha256", name=op.f("pk_job_inputs")),
    )
    op.create_index("ix_job_inputs_sha256", "job_inputs", ["sha256"], unique=False)
    op.execute(REFERENCES)
    op.add_column(
        "inputs", sa.Column("used_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
    )
    op.add_column("jobs", sa.Column("images_removed", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("picture_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("keep_days", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("keep_starred", sa.Boolean(), nullable=True))
    op.create_check_constraint(
        op.f("ck_jobs_removed_were_completed"), "jobs", "images_removed BETWEEN 0 AND images_completed"
    )
    op.create_check_constraint(op.f("ck_jobs_picture_bytes"), "jobs", "picture_bytes >= 0")
    op.create_check_constraint(op.f("ck_jobs_keep_days"), "jobs", "keep_days >= 1")
    op.add_column("images", sa.Column("picture_bytes", sa.Integer(), nullable=True))
    op.add_column("images", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint(op.f("ck_images_completed_has_picture"), "images")
    op.drop_constraint(op.f("ck_images_picture_with_hash"), "images")
    op.create_check_constraint(
        op.f("ck_images_completed_has_picture"),
        "images",
        "(image_key IS NOT NULL) = (state = 'completed' AND removed_at IS NULL)",
    )
    op.create_check_constraint(
        op.f("ck_images_completed_has_hash"), "images", "(sha256 IS NOT NULL) = (state = 'completed')"
    )
    op.create_check_constraint(
        op.f("ck_images_removed_was_completed"), "images", "removed_at IS NULL OR state = 'completed'"
    )


def downgrade() -> None:
    # Before, what was completed named its picture: that the object is missing is told by who asks for it.
    op.execute(
        """
        UPDATE images SET image_key = format('images/%s/%s.png', job_id, lpad("index"::text, 6, '0')),
            thumbnail_key = format('thumbnails/%s/%s.webp', job_id, lpad("index"::text, 6, '0')), removed_at = NULL
        WHERE removed_at IS NOT NULL
        """
    )
    op.drop_constraint(op.f("ck_images_removed_was_completed"), "images")
    op.drop_constraint(op.f("ck_images_completed_has_hash"), "images")
    op.drop_constraint(op.f("ck_images_completed_has_picture"), "images")
    op.create_check_constraint(op.f("ck_images_picture_with_hash"), "images", "(image_key IS NULL) = (sha256 IS NULL)")
    op.create_check_constraint(
        op.f("ck_images_completed_has_picture"), "images", "(image_key IS NOT NULL) = (state = 'completed')"
    )
    op.drop_column("images", "removed_at")
    op.drop_column("images", "picture_bytes")
    op.drop_constraint(op.f("ck_jobs_keep_days"), "jobs")
    op.drop_constraint(op.f("ck_jobs_picture_bytes"), "jobs")
    op.drop_constraint(op.f("ck_jobs_removed_were_completed"), "jobs")
    op.drop_column("jobs", "keep_starred")
    op.drop_column("jobs", "keep_days")
    op.drop_column("jobs", "picture_bytes")
    op.drop_column("jobs", "images_removed")
    op.drop_column("inputs", "used_at")
    op.drop_index("ix_job_inputs_sha256", table_name="job_inputs")
    op.drop_table("job_inputs")
    op.drop_table("retention_policies")
