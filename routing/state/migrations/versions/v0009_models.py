"""Whole models that the gateway fetches, and their versions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "models",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("pool", sa.Text),
        sa.Column("fields", sa.JSON, nullable=False),
        sa.Column("live", sa.Integer),
        sa.Column("previous", sa.Integer),
        sa.Column("retiring", sa.Boolean, nullable=False),
        sa.Column("versions", sa.JSON, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_models"),
    )


def downgrade() -> None:
    """Drop it with its contents."""
    op.drop_table("models")
