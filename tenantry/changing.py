"""The commands `diff` and `apply`: compare a fleet file with the running fleet, put it in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fleet.document import MAX_FILE_BYTES
from fleet.wording import subject_of
from tenantry.client import Answer, Gateway, GatewayRefused, Params
from tenantry.following import AtOnce, follow
from tenantry.running import URL, AsJson, Refused, Url, ask, console, printable

GOES_ON = (
    "The fleet counts; engines that were not reached run on with their old settings. To go back, apply the "
    "old file with --restart."
)
File = Annotated[Path, typer.Argument(metavar="FILE", help="Fleet file.", show_default=False)]


def diff(ctx: typer.Context, file: File, url: Url = URL, as_json: AsJson = False) -> None:
    """Show what a fleet file would change in the running fleet, and whether it can. Changes nothing."""
    _send(ctx, file, {"dry_run": True}, url, as_json)


def apply(  # noqa: PLR0913  # an argument for each option, as typer wants it
    ctx: typer.Context,
    file: File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    revision: Annotated[
        int | None,
        typer.Option(min=0, help="Refuse where the fleet is at another one.", show_default="any"),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Restart engines whose settings change, one after the other; no request fails."
        ),
    ] = False,
    no_wait: AtOnce = False,
    url: Url = URL,
    as_json: AsJson = False,
) -> None:
    """Put a fleet file in the place of the running fleet, without a restart: all of it, or nothing.

    Settings with which engines are started (`max_loras`, `max_model_len`, `vllm_args`, ...) need `--restart`.
    """
    params: Params = {"dry_run": dry_run, "revision": revision, "restart": restart}
    _send(ctx, file, params, url, as_json, wait=not (dry_run or no_wait))


def _send(
    ctx: typer.Context, file: Path, params: Params, url: str, as_json: bool, *, wait: bool = False
) -> None:
    """Send the file; then follow the restarts that it begins, one pool after the other."""
    shown = None if as_json else console()

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
        if shown is not None:
            _show(shown, answer)
        for pool in answer["restarts"] if wait else ():
            try:
                await follow(gateway, pool, shown)
            except Refused as error:
                raise Refused(f"{error} {GOES_ON}", error.answer) from None
        return answer

    ask(ctx, url, as_json, work, lambda _shown, _answer: None)


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
    pools = ", ".join(answer["restarts"])
    if answer["applied"]:
        shown.print(f"Applied as revision {revision}; it counts from the next request on.", style="green")
    elif answer["changes"]:
        needed = f"The engines of {pools} would restart" if pools else "This needs no restart"
        shown.print(printable(f"{needed}. The fleet is at revision {revision}."))
    else:
        shown.print(f"Nothing differs. The fleet is at revision {revision}.")
    if pools and (answer["applied"] or not answer["changes"]):
        shown.print(printable(f"Engines get their new settings, one after the other: {pools}."))
