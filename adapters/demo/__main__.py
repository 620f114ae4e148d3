"""The command `python -m adapters.demo`: make the demo fleet's models, unless they are there already."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from adapters.demo import answers as demo
from adapters.demo import build, bulk, folder
from adapters.demo.errors import DemoError
from adapters.demo.recipe import Recipe

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
    console = Console(highlight=False)
    try:
        _make(console, out.expanduser().resolve(), seed=seed, force=force, bulk_count=adapters)
    except KeyboardInterrupt:
        console.print("Interrupted; nothing was changed.")
        raise typer.Exit(_INTERRUPTED) from None
    except (DemoError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None


def _make(console: Console, out: Path, *, seed: int, force: bool, bulk_count: int) -> None:
    recipe = Recipe()
    started = time.monotonic()
    manifest = None if force else folder.complete(out, recipe, seed=seed)
    if manifest and manifest.bulk >= bulk_count:
        console.print(f"The demo models in {out} are complete ({_size(sum(manifest.files.values()))}).")
        return
    folder.check_replaceable(out)
    with folder.locked(out, lambda: console.print(f"Another run works on {out}; waiting for it.")):
        manifest = None if force else folder.complete(out, recipe, seed=seed)
        if manifest is None:
            with _progress(console, recipe) as report:
                manifest = build.train(out, recipe, seed=seed, bulk_count=bulk_count, progress=report)
        elif manifest.bulk < bulk_count:
            manifest = build.add_bulk(out, recipe, manifest, bulk_count=bulk_count)
    _summary(console, out, manifest, seconds=time.monotonic() - started)


@contextmanager
def _progress(console: Console, recipe: Recipe) -> Iterator[build.Progress]:
    """Show one bar per model on a terminal, and one line per finished model elsewhere."""
    margin_wanted = recipe.schedule.margin
    if not console.is_terminal:
        console.print("Training the demo models ...")

        def line(name: str, step: int, margin: float) -> None:
            if margin >= margin_wanted:
                console.print(f"  {name}: learnt in {step} steps, margin {margin:.1f} logits")

        yield line
        return

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        names = (demo.BASE_MODEL, *demo.ADAPTERS)
        tasks: dict[str, TaskID] = {
            name: bars.add_task(name, total=margin_wanted, start=False, note="waiting") for name in names
        }

        def draw(name: str, step: int, margin: float) -> None:
            task = tasks[name]
            bars.start_task(task)
            bars.update(
                task, completed=min(max(margin, 0.0), margin_wanted), note=f"{step} steps, {margin:.1f}"
            )

        yield draw


def _summary(console: Console, out: Path, manifest: folder.Manifest, *, seconds: float) -> None:
    table = Table("part", "size", title=f"Demo models in {out}", title_justify="left")
    parts = ["base", *(f"adapters/{name}" for name in demo.ADAPTERS)]
    for part in parts:
        table.add_row(part, _size(_bytes(manifest, f"{part}/")))
    if manifest.bulk:
        label = f"adapters/{bulk.name(0)} .. {bulk.name(manifest.bulk - 1)}"
        table.add_row(label, _size(_bytes(manifest, "adapters/bulk-")))
    console.print(table)
    console.print(f"Ready in {seconds:.1f} s; what each model says is in {out / 'answers.json'}.")


def _bytes(manifest: folder.Manifest, prefix: str) -> int:
    return sum(size for path, size in manifest.files.items() if path.startswith(prefix))


def _size(count: int) -> str:
    return f"{count / 2**20:.2f} MiB"


def main() -> None:
    """Run the command; SIGTERM ends it as cleanly as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    app()


if __name__ == "__main__":
    main()
