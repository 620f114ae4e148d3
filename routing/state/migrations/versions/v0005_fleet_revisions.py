"""The documents that were applied as the fleet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "fleet_revisions",
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("at_s", sa.Double, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("file_sha256", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_fleet_revisions"),
    )


def downgrade() -> None:
    """Drop the table with its rows."""
    op.drop_table("fleet_revisions")
