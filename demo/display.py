"""Shows the command's progress and result: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo import answers as demo
from demo import bulk
from demo.build import Watcher
from demo.folder import Manifest
from demo.recipe import Recipe


class Lines:
    """One line per model, when it has learnt."""

    def __init__(self, console: Console) -> None:
        """Write to `console`."""
        self._console = console

    def step(self, model: str, step: int) -> None:
        """Say nothing."""

    def learnt(self, model: str, steps: int, margin: float) -> None:
        """Write the model's line."""
        self._console.print(f"  {model}: {steps} steps, margin {margin:.1f} logits")


class Bars:
    """One bar per model, filled by its steps."""

    def __init__(self, progress: Progress, recipe: Recipe) -> None:
        """Add a waiting bar for every model to `progress`."""
        self._progress = progress
        self._tasks: dict[str, TaskID] = {
            model: progress.add_task(model, total=schedule.steps, start=False, note="waiting")
            for model, schedule in (
                (demo.BASE_MODEL, recipe.base),
                *((name, recipe.adapter) for name in demo.ADAPTERS),
                *(
                    (demo.gpt2_name(name), recipe.gpt2)
                    for name, kind in demo.WHOLE_MODELS.items()
                    if kind == "gpt2"
                ),
            )
        }

    def step(self, model: str, step: int) -> None:
        """Move the model's bar."""
        task = self._tasks[model]
        if not step:
            self._progress.start_task(task)
        self._progress.update(task, completed=step, note=f"{step} steps")

    def learnt(self, model: str, steps: int, margin: float) -> None:
        """Fill the model's bar."""
        task = self._tasks[model]
        self._progress.update(task, total=steps, completed=steps, note=f"margin {margin:.1f}")
        self._progress.stop_task(task)


@contextmanager
def watching(console: Console, recipe: Recipe) -> Iterator[Watcher]:
    """Give a watcher that suits `console`."""
    console.print("Training the demo models; this takes about half a minute.")
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        yield Bars(progress, recipe)


def summary(console: Console, out: Path, manifest: Manifest, *, seconds: float) -> None:
    """Show the sizes of all parts and how long the whole took."""
    table = Table("part", "size", title=f"Demo models in {out}", title_justify="left")
    adapters, whole = (
        (f"adapters/{name}" for name in demo.ADAPTERS),
        (f"whole/{name}" for name in demo.WHOLE_MODELS),
    )
    for part in ("base", *adapters, *whole):
        table.add_row(part, size(_bytes(manifest, f"{part}/")))
    if manifest.bulk:
        label = f"adapters/{bulk.name(0)} .. {bulk.name(manifest.bulk - 1)}"
        table.add_row(label, size(_bytes(manifest, "adapters/bulk-")))
    console.print(table)
    console.print(f"Ready in {seconds:.1f} s; each model's answers are in {out / 'answers.json'}.")


def size(count: int) -> str:
    """Return a number of bytes in MiB."""
    return f"{count / 2**20:.2f} MiB"


def _bytes(manifest: Manifest, prefix: str) -> int:
    return sum(count for path, count in manifest.files.items() if path.startswith(prefix))
