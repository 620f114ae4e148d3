"""Commands that print reference texts: the schema of fleet.yaml, and the meaning of every metric."""

from __future__ import annotations

import json

import typer

from fleet.schema import json_schema


def schema() -> None:
    """Print the JSON Schema of fleet.yaml, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2))


def metrics() -> None:
    """Print the meaning of every metric, as Markdown: docs/metrics.md."""
    # It declares the engine's metrics too, which no other command needs.
    from routing.observing.metrics.document import document

    typer.echo(document(), nl=False)
