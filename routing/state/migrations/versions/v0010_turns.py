"""What switches between whole models took, and the models that operators pinned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "switch_costs",
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("went", sa.Text, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("host", "model", "went", name="pk_switch_costs"),
    )
    op.create_table(
        "turn_pins",
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("pool", "model", name="pk_turn_pins"),
    )


def downgrade() -> None:
    """Drop them with their contents."""
    op.drop_table("turn_pins")
    op.drop_table("switch_costs")
