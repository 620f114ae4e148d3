"""What requests cost. Those that ended before have no cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("usage_records", sa.Column("cost", sa.BigInteger))
    for name in ("priced_requests", "cost"):
        op.add_column("usage_days", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop them with what they hold."""
    op.drop_column("usage_days", "cost")
    op.drop_column("usage_days", "priced_requests")
    op.drop_column("usage_records", "cost")
