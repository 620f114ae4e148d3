"""What each client's script is made of: checks by name, each told as one line of JSON."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

URL = os.environ["CLIENT_URL"]  # without a path
KEY = os.environ["CLIENT_KEY"]
MODEL = os.environ["CLIENT_MODEL"]  # its name has slashes
ADAPTER = os.environ["CLIENT_ADAPTER"]
HELLO: Any = [{"role": "user", "content": "What are your opening hours?"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
_checks: list[Callable[[], Any]] = []


def check(function: Callable[[], Any]) -> Callable[[], Any]:
    """Have a function called by `run`; it fails by raising."""
    _checks.append(function)
    return function


def run() -> None:
    """Run the checks in order, and tell how each went."""
    for function in _checks:
        told = {"check": function.__name__, "ok": True, "error": ""}
        try:
            result = function()
            if inspect.isawaitable(result):
                asyncio.run(_within(result))
        except Exception as error:  # noqa: BLE001 - whatever a client raises
            told |= {"ok": False, "error": f"{type(error).__name__}: {error}"[:600]}
            traceback.print_exc(file=sys.stderr)
        print(json.dumps(told), flush=True)


async def _within(result: Any) -> None:
    await asyncio.wait_for(result, 60)


def refused(error: type[Exception], call: Callable[[], object]) -> Any:
    """Return the error of this type that a call raises. Raises `AssertionError` where it raises none."""
    try:
        call()
    except error as raised:
        return raised
    raise AssertionError(f"no {error.__name__}")
