"""Tenants and aliases that were changed at run time; the tenant of an event, and what was changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and columns."""
    op.create_table(
        "tenants",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("admitted", sa.Boolean, nullable=False),
        sa.Column("apart", sa.Boolean, nullable=False),
        sa.Column("removed", sa.Boolean, nullable=False),
        sa.Column("fields", sa.JSON, nullable=False),
        sa.Column("changed_s", sa.Double, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_tenants"),
    )
    op.create_table(
        "aliases",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("changed_s", sa.Double, nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "alias", name="pk_aliases"),
    )
    op.add_column("events", sa.Column("tenant", sa.Text))
    op.add_column("events", sa.Column("changes", sa.JSON))
    op.create_index("ix_events_tenant", "events", ["tenant", "id"])


def downgrade() -> None:
    """Drop them with their contents."""
    op.drop_index("ix_events_tenant", "events")
    with op.batch_alter_table("events") as events:
        events.drop_column("changes")
        events.drop_column("tenant")
    op.drop_table("aliases")
    op.drop_table("tenants")
