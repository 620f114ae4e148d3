"""Runs the command against the admin API, in this process."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from typer.testing import CliRunner, Result

from tenantry.app import app
from tenantry.client import KEY_VARIABLE
from tenantry.running import Connection
from tests.unit.routing.admin.fakes import Desk

Run = Callable[..., Result]


def runner(desk: Desk, command: str) -> Run:
    """Return what runs a command, as an operator unless another key is given."""

    def run(*arguments: str, key: str = "operator-key") -> Result:
        return CliRunner().invoke(
            app,
            [command, *arguments],
            obj=Connection(httpx.ASGITransport(desk.app)),
            env={KEY_VARIABLE: key, "COLUMNS": "200"},
        )

    return run
