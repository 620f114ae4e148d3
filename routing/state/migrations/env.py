"""Alembic's entry to the migrations; `routing.state.database` runs it."""

from __future__ import annotations

from alembic import context

from routing.state.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,  # SQLite cannot alter most of a table in place
)
context.run_migrations()
