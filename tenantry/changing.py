"""The commands `diff` and `apply`: compare a fleet file with the running fleet, put it in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fleet.document import MAX_FILE_BYTES
from fleet.wording import subject_of
from tenantry.client import Answer, Gateway, GatewayRefused
from tenantry.running import URL, AsJson, Refused, Url, ask, console, printable

File = Annotated[Path, typer.Argument(metavar="FILE", help="Fleet file.", show_default=False)]


def diff(ctx: typer.Context, file: File, url: Url = URL, as_json: AsJson = False) -> None:
    """Show what a fleet file would change in the running fleet, and whether it can. Changes nothing."""
    _send(ctx, file, {"dry_run": True}, url, as_json)


def apply(  # an argument for each option, as typer wants it
    ctx: typer.Context,
    file: File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    revision: Annotated[
        int | None,
        typer.Option(min=0, help="Refuse where the fleet is at another one.", show_default="any"),
    ] = None,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Put a fleet file in the place of the running fleet, without a restart: all of it, or nothing."""
    _send(ctx, file, {"dry_run": dry_run, "revision": revision}, url, as_json)


def _send(ctx: typer.Context, file: Path, params: dict[str, int | None], url: str, as_json: bool) -> None:
    async def work(gateway: Gateway) -> Answer:
        with file.open("rb") as opened:
            document = opened.read(MAX_FILE_BYTES + 1)  # more is the gateway's to refuse
        try:
            answer = await gateway.put_document("/fleet", document, params)
        except GatewayRefused as error:
            reasons = _reasons(error.answer)
            if not reasons:
                raise
            if not as_json:
                _print_reasons(reasons)
            raise Refused("Nothing was changed.", error.answer) from None
        if answer["reasons"]:
            if not as_json:
                _show_changes(console(), answer)
                _print_reasons(answer["reasons"])
            raise Refused("It would be refused.", answer)
        return answer

    ask(ctx, url, as_json, work, _show)


def _reasons(answer: Answer) -> list[str]:
    """List the problems of a document, or the reasons why it was refused."""
    found = [_problem(problem) for problem in answer.get("problems", [])]
    return [*found, *map(str, answer.get("reasons", []))]


def _problem(problem: Answer) -> str:
    line = "" if problem["line"] is None else f"line {problem['line']}: "
    place = f"{problem['path']}: " if problem["path"] else ""
    remedy = f"; {problem['remedy']}" if problem["remedy"] else ""
    return f"{line}{place}{problem['message']}{remedy}"


def _print_reasons(reasons: list[str]) -> None:
    errors = console(stderr=True)
    for reason in reasons:
        errors.print(printable(f"error: {reason}"), style="red")


def _show_changes(shown: Console, answer: Answer) -> None:
    for change in answer["changes"]:
        subject = subject_of(change["section"], change["name"])
        shown.print(printable(f"{subject}: {change['text']}"))


def _show(shown: Console, answer: Answer) -> None:
    _show_changes(shown, answer)
    for text in answer["consequences"]:
        shown.print(printable(f"made at run time: {text}"), style="yellow")
    for warning in answer["warnings"]:
        shown.print(printable(f"warning: {warning}"), style="yellow")
    revision = answer["revision"]
    if answer["applied"]:
        shown.print(f"Applied as revision {revision}; it counts from the next request on.", style="green")
    elif answer["changes"]:
        shown.print(f"This needs no restart. The fleet is at revision {revision}.")
    else:
        shown.print(f"Nothing differs. The fleet is at revision {revision}.")
