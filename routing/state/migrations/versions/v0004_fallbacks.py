"""In whose place a model answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("usage_records", sa.Column("fallback_of", sa.Text))


def downgrade() -> None:
    """Drop it with what it holds."""
    op.drop_column("usage_records", "fallback_of")
