"""By which way a model came, and when the first token of a stream came."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; of what was before, neither is known."""
    op.add_column("switch_costs", sa.Column("way", sa.Text, nullable=False, server_default=""))
    op.add_column("usage_records", sa.Column("first_s", sa.Double))


def downgrade() -> None:
    """Drop them with what they hold."""
    op.drop_column("usage_records", "first_s")
    op.drop_column("switch_costs", "way")
