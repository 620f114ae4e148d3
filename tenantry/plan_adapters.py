"""The command `plan adapters`: could a whole fine-tune be an adapter? Needs no engine and no gateway."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from planning.extraction import KEEP, MAX_RANK, Extraction, extract
from tenantry.client import Answer
from tenantry.columns import Columns, print_prose
from tenantry.display import percent
from tenantry.running import AsJson, Refused, conclude, print_whole
from tenantry.running import console as console_for

SHOWN = 12  # matrices in the table: those that need most; --json has all
_MOST_RANK = 512  # that vLLM serves


def adapters(
    tuned: Annotated[
        str, typer.Argument(metavar="MODEL", help="Whole fine-tune: a folder, or a hub id on this machine.")
    ],
    base: Annotated[str, typer.Option(help="Whole model that it was tuned from, likewise.")],
    write: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the adapter into this new folder.", show_default="no"),
    ] = None,
    max_rank: Annotated[
        int, typer.Option(min=1, max=_MOST_RANK, help="Largest rank that is looked for.")
    ] = MAX_RANK,
    keep: Annotated[
        float,
        typer.Option(min=0.5, max=1.0, help="Part of each difference to keep, where not all of it can be."),
    ] = KEEP,
    as_json: AsJson = False,
) -> None:
    """Find out whether a whole fine-tune could be an adapter of its base; write that adapter."""

    def work() -> Answer:
        with Progress(console=console_for(stderr=True), transient=True, disable=as_json) as shown:
            task = shown.add_task("comparing weights", total=None)
            found = extract(
                tuned,
                base,
                write=write,
                max_rank=max_rank,
                keep=keep,
                progress=lambda done, of: shown.update(task, completed=done, total=of),
            )
        answer = _answer(found, write)
        if found.why_not:
            raise Refused(f"Not an adapter: {found.why_not}.", answer)
        return answer

    conclude(work, as_json, _show)


def _answer(found: Extraction, write: Path | None) -> Answer:
    manifest = found.manifest
    return {
        "is_adapter": not found.why_not,
        "why_not": found.why_not or None,
        "rank": found.rank,
        "kept": found.kept,
        "layers": [asdict(layer) for layer in found.layers],
        "notes": list(found.notes),
        "written": None if manifest is None else str(write),
        "size_bytes": None if manifest is None else manifest.size_bytes,
        "digest": None if manifest is None else manifest.digest,
    }


def _show(console: Console, answer: Answer) -> None:
    layers = sorted(answer["layers"], key=lambda layer: (-layer["rank"], -layer["change"], layer["name"]))
    print_prose(
        console,
        f"An adapter of rank {answer['rank']}: {len(layers)} matrices differ, of each at least "
        f"{answer['kept']:.2%} is kept.",
        "bold",
    )
    table = Columns(
        *("matrix", "differs by", "rank", "rank for 99 %", "kept"),
        spare=("rank for 99 %",),
        right=("differs by", "rank", "rank for 99 %", "kept"),
    )
    for layer in layers[:SHOWN]:
        kept = f"{layer['kept']:.2%}"
        table.add(layer["name"], percent(layer["change"]), layer["rank"], layer["rank_keeping"], kept)
    print_whole(console, table)
    if len(layers) > SHOWN:
        print_prose(console, f"and {len(layers) - SHOWN} others (--json has all)", "dim")
    for note in answer["notes"]:
        print_prose(console, note, "yellow")
    if answer["written"]:
        print_prose(
            console,
            f"Written to {answer['written']} ({answer['size_bytes'] / 2**20:.1f} MiB), and checked. Compare "
            "both on your own prompts before the whole model goes.",
        )
