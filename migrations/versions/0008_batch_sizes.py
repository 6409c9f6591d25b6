"""Workers tell how many images their device takes best in one call."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("workers", sa.Column("batch_sizes", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "batch_sizes")
