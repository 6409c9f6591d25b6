"""Uploads are written anew: names of what was sent lead to what is stored."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    # What was stored before is named by what was sent, and needs no second name.
    op.create_table(
        "input_names",
        sa.Column("sent", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["sha256"], ["inputs.sha256"], name=op.f("fk_input_names_sha256"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sent", name=op.f("pk_input_names")),
    )
    op.create_index(op.f("ix_input_names_sha256"), "input_names", ["sha256"])


def downgrade() -> None:
    op.drop_table("input_names")
