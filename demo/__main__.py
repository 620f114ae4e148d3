"""The command `python -m demo`: make the demo fleet's models, unless they are there already."""

from __future__ import annotations

import signal

if __name__ == "__main__":  # the imports take seconds, and nothing has begun yet
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from demo import build, display, folder
from demo.errors import DemoError
from demo.recipe import Recipe

_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM

app = typer.Typer(add_completion=False)


@app.command()
def make(
    out: Annotated[Path, typer.Option(help="Folder of the models.")] = Path(".cache/demo"),
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same weights.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Train again, complete or not.")] = False,
    adapters: Annotated[
        int, typer.Option(min=0, max=10_000, help="Further synthetic adapters, for benchmarks.")
    ] = 0,
) -> None:
    """Train a tiny base model and five adapters that answer eight questions, each in its own words."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        _make(console, out.expanduser().resolve(), seed=seed, force=force, bulk_count=adapters)
    except KeyboardInterrupt:
        console.print("Interrupted; nothing was left half made.")
        raise typer.Exit(_INTERRUPTED) from None
    except (DemoError, OSError) as error:
        Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(str(error), style="red")
        raise typer.Exit(1) from None


def _make(console: Console, out: Path, *, seed: int, force: bool, bulk_count: int) -> None:
    recipe = Recipe()
    started = time.monotonic()
    manifest = None if force else folder.complete(out, recipe, seed=seed)
    if manifest and manifest.bulk >= bulk_count:
        total = display.size(sum(manifest.files.values()))
        console.print(f"The demo models in {out} are complete ({total}).")
        return
    folder.check_replaceable(out)
    with folder.locked(out, lambda: console.print(f"Another run works on {out}; waiting for it.")):
        manifest = None if force else folder.complete(out, recipe, seed=seed)
        if manifest is None:
            with display.watching(console, recipe) as watcher:
                manifest = build.train(out, recipe, seed=seed, bulk_count=bulk_count, watcher=watcher)
        elif manifest.bulk < bulk_count:
            manifest = build.add_bulk(out, recipe, manifest, bulk_count=bulk_count)
    display.summary(console, out, manifest, seconds=time.monotonic() - started)


def main() -> None:
    """Run the command; SIGTERM ends it as cleanly as Ctrl-C does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    app()


if __name__ == "__main__":
    main()
