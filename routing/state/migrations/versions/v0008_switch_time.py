"""The time of switches, for those requests that waited for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what ended before waited for none."""
    op.add_column("usage_records", sa.Column("switch_s", sa.Double))
    op.add_column("usage_days", sa.Column("switch_s", sa.Double, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop them with what they hold."""
    op.drop_column("usage_days", "switch_s")
    op.drop_column("usage_records", "switch_s")
