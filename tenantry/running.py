"""Runs a command against the gateway: shared options, output and exit codes.

0 all is well, 1 the gateway or a check refused, 2 the command was used wrongly, 3 no gateway answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, TypeVar

import httpx
import typer
from rich.console import Console, RenderableType

from adapters.errors import AdapterError
from tenantry.client import (
    DEFAULT_URL,
    URL_VARIABLE,
    Gateway,
    GatewayError,
    key_from_environment,
    understood,
)

T = TypeVar("T")
WIDE = 10_000  # output to a pipe has no width: scripts find each row on one line
_NAME_CHARS = 200
INTERRUPTED = 130  # 128 + SIGINT, as shells count
_DURATION = re.compile(r"(\d{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}

Url = Annotated[str, typer.Option("--url", envvar=URL_VARIABLE, help="The gateway.", show_default=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts; errors too.")]
Tenant = Annotated[
    str | None,
    typer.Option("--tenant", help="Whose adapter; an operator names it.", show_default="the key's, or none"),
]
BaseModel = Annotated[
    str | None,
    typer.Option(help="Base model it was trained on.", show_default="the tenant's, if it has one"),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return once it is registered.")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds to wait until it is ready.")]
URL = DEFAULT_URL


@dataclass(frozen=True, slots=True)
class Connection:
    """The way to reach gateways; commands find it as the context's object. For tests."""

    transport: httpx.AsyncBaseTransport | None = None


class Refused(Exception):
    """The work was done, and its result is a refusal; `answer` is still printed."""

    def __init__(self, message: str, answer: Any) -> None:
        super().__init__(message)
        self.answer = answer


def ask(
    ctx: typer.Context,
    url: str,
    as_json: bool,
    work: Callable[[Gateway], Awaitable[T]],
    show: Callable[[Console, T], None],
) -> None:
    """Do the work against the gateway and print its result, or exit with the code of the failure."""

    async def work_with_gateway() -> T:
        connection = ctx.find_object(Connection) or Connection()
        async with Gateway(url, key_from_environment(), transport=connection.transport) as gateway:
            with understood(url):
                return await work(gateway)

    def show_what_is_understood(shown: Console, result: T) -> None:
        with understood(url):
            show(shown, result)

    conclude(lambda: asyncio.run(work_with_gateway()), as_json, show_what_is_understood)


def conclude(work: Callable[[], T], as_json: bool, show: Callable[[Console, T], None]) -> None:
    """Do the work and print its result, or exit with the code of the failure."""
    try:
        result = work()
    except Refused as error:
        if as_json:
            typer.echo(json.dumps(error.answer, indent=2))
            raise typer.Exit(1) from None
        _fail(str(error), "refused", 1, as_json)
    except GatewayError as error:
        _fail(str(error), error.code, error.exit_code, as_json)
    except (AdapterError, OSError) as error:
        _fail(_reason(error), "refused", 1, as_json)
    except KeyboardInterrupt:
        _fail("Interrupted; work begun at the gateway goes on there.", "interrupted", INTERRUPTED, as_json)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    try:
        show(console(), result)
    except GatewayError as error:
        _fail(str(error), error.code, error.exit_code, as_json)


def run(app: typer.Typer, name: str) -> NoReturn:
    """Run a command line; a failure to write output is one sentence."""
    try:
        try:
            app(prog_name=name)
        finally:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest is flushed at exit
        console(stderr=True).print(printable(f"The command broke off: {_reason(error)}"), style="red")
    sys.exit(1)


def console(*, stderr: bool = False) -> Console:
    """Return a console. Texts of gateways and files are never read as markup."""
    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not made.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        made.width = WIDE
    return made


def print_whole(shown: Console, what: RenderableType) -> None:
    """Print a layout of the console's width; an id that is wider passes its edge uncut."""
    shown.print(what, soft_wrap=False, crop=False)


def duration_s(text: str) -> float:
    """Read `90s`, `15m`, `12h` or `30d`. Raises `typer.BadParameter`."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no time; write it like 90s, 15m, 12h or 30d")
    return float(int(found[1]) * _SECONDS[found[2]])


def printable(text: Any) -> str:
    """Return text without characters that could steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in str(text))


def _reason(error: Exception) -> str:
    """Return the reason; for a file with its name, shortened."""
    if not isinstance(error, OSError) or error.strerror is None or error.filename is None:
        return str(error)
    name = str(error.filename)
    return f"{name if len(name) <= _NAME_CHARS else name[:_NAME_CHARS] + '...'}: {error.strerror}"


def _fail(message: str, code: str, exit_code: int, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"error": {"message": message, "code": code}}, indent=2))
    else:
        console(stderr=True).print(printable(message), style="red")
    raise typer.Exit(exit_code)
