"""Commands that print reference texts: the schema of fleet.yaml, and what every metric means."""

from __future__ import annotations

import json

import typer

from fleet.schema import json_schema


def schema() -> None:
    """Print the JSON Schema of fleet.yaml, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2))


def metrics() -> None:
    """Print what every metric means, as Markdown: docs/metrics.md."""
    # It declares the engine's metrics too, which nobody else needs here.
    from routing.observing.metrics.document import document

    typer.echo(document(), nl=False)
