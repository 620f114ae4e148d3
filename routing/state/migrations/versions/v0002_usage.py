"""The usage ledger: a record of each request, and sums of each day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "usage_records",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("at_s", sa.Double, nullable=False),
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("adapter", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("replica", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        sa.Column("cached_tokens", sa.Integer, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("queue_s", sa.Double, nullable=False),
        sa.Column("run_s", sa.Double, nullable=False),
        sa.Column("slot_s", sa.Double, nullable=False),
        sa.Column("engine_s", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_records"),
    )
    op.create_table(
        "usage_days",
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("adapter", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("estimated_requests", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("queue_s", sa.Double, nullable=False),
        sa.Column("run_s", sa.Double, nullable=False),
        sa.Column("slot_s", sa.Double, nullable=False),
        sa.Column("engine_s", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint(
            "day", "tenant", "model", "adapter", "version", "pool", "outcome", name="pk_usage_days"
        ),
    )
    op.create_index("ix_usage_days_tenant", "usage_days", ["tenant", "day"])


def downgrade() -> None:
    """Drop the tables with their rows."""
    op.drop_table("usage_days")
    op.drop_table("usage_records")
