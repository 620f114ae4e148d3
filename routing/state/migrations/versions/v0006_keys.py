"""Limits of API keys, and usage by key. What was used before is of no known key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_BEFORE = ["day", "tenant", "model", "adapter", "version", "pool", "outcome"]
_AFTER = ["day", "tenant", "key", "model", "adapter", "version", "pool", "outcome"]


def upgrade() -> None:
    """Add the columns; the key becomes part of what the sums of a day are kept by."""
    op.add_column("api_keys", sa.Column("limits", sa.JSON))
    op.add_column("usage_records", sa.Column("key", sa.Text))
    with op.batch_alter_table("usage_days") as days:
        days.add_column(sa.Column("key", sa.Text, nullable=False, server_default=""))
        days.drop_constraint("pk_usage_days", type_="primary")
        days.create_primary_key("pk_usage_days", _AFTER)
    with op.batch_alter_table("usage_days") as days:
        days.alter_column("key", server_default=None)
    op.create_index("ix_usage_days_key", "usage_days", ["key", "day"])


def downgrade() -> None:
    """Drop the columns. Sums that differ by their key alone are refused: they cannot be told apart."""
    op.drop_index("ix_usage_days_key", "usage_days")
    with op.batch_alter_table("usage_days") as days:
        days.drop_constraint("pk_usage_days", type_="primary")
        days.create_primary_key("pk_usage_days", _BEFORE)
        days.drop_column("key")
    op.drop_column("usage_records", "key")
    op.drop_column("api_keys", "limits")
