"""Whatever is wrong around a command, it ends with a sentence and an exit code, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from tenantry.app import app
from tenantry.client import KEY_VARIABLE
from tenantry.running import Connection

LONG = "y" * 5000
ASKING = [
    ["adapters", "list"],
    ["adapters", "show", "support"],
    ["adapters", "add", "support", "hf://a/b"],
    ["adapters", "retry", "support", "1"],
    ["adapters", "export", "support"],
    ["replicas"],
    ["events"],
    ["keys", "list"],
    ["keys", "create", "--role", "operator"],
    ["keys", "revoke", "id1"],
    ["usage"],
    ["usage", "--csv"],
    ["scheduler"],
    ["top", "--once"],
    ["top"],
    ["drain", "shared-0"],
]
asking = pytest.mark.parametrize("command", ASKING, ids=" ".join)
WAYS = [ASKING[0], ASKING[2], ASKING[7], ASKING[13], ASKING[14]]  # each way in which a gateway is asked
ways = pytest.mark.parametrize("command", WAYS, ids=" ".join)


def invoke(command: list[str], transport: Any = None, *, key: str = "key") -> Result:
    connection = Connection(transport) if transport is not None else None
    return CliRunner().invoke(app, command, env={KEY_VARIABLE: key, "COLUMNS": "200"}, obj=connection)


def assert_said(result: Result, *exit_codes: int) -> None:
    """The command ended by itself, with a short sentence."""
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code in exit_codes, result.output
    assert "Traceback" not in result.output
    assert 0 < len(result.stderr.strip()) < 1500


@ways
@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "http://",
        "http://[::1",
        "http://u:p@host",
        "ftp://host",
        "http://a b",
        f"http://{LONG}",
        "http://\x01",
    ],
    ids=lambda url: ascii(url)[:16],
)
def test_what_is_no_url_is_wrong_use(command: list[str], url: str) -> None:
    result = invoke([*command, "--url", url])
    assert_said(result, 2, 3) if url else assert_said(result, 2)


@ways
@pytest.mark.parametrize("port", ["1", "99999", "x"])
def test_where_nobody_listens_it_is_said(command: list[str], port: str) -> None:
    assert_said(invoke([*command, "--url", f"http://127.0.0.1:{port}"]), 2, 3)


@ways
@pytest.mark.parametrize("key", ["", " ", "ü", "a\nb", "\udcff"], ids=ascii)
def test_a_key_that_is_none_is_wrong_use(command: list[str], key: str) -> None:
    assert_said(invoke(command, key=key), 2)


STRANGE: dict[str, dict[str, Any]] = {
    "text": {"text": "hello"},
    "half": {"content": b'{"data": [{"na'},
    "no text": {"content": b"\xff\xfe\x00"},
    "deep": {"content": b"[" * 100_000},
    "list": {"json": []},
    "no fields": {"json": {}},
    "data is text": {"json": {"data": "x", "pools": "x", "models": "x"}},
    "data is null": {"json": {"data": None, "pools": None, "models": None, "total": None}},
    "rows without fields": {"json": {"data": [{}], "pools": [{}], "models": [{}], "versions": [{}]}},
    "rows are numbers": {"json": {"data": [1], "pools": [1], "models": [1], "versions": [1]}},
    "not gzip": {"content": b"not gzip", "headers": {"content-encoding": "gzip"}},
}


@asking
@pytest.mark.parametrize("answer", STRANGE)
def test_an_answer_in_no_known_shape_is_said(command: list[str], answer: str) -> None:
    def strange(_: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, stream=httpx.ByteStream(_content(answer)), headers=STRANGE[answer].get("headers")
        )

    result = invoke(command, httpx.MockTransport(strange))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    assert result.exit_code in (0, 1, 3), result.output


def _content(answer: str) -> bytes:
    return httpx.Response(200, **{k: v for k, v in STRANGE[answer].items() if k != "headers"}).content


@ways
@pytest.mark.parametrize(
    "error",
    [httpx.ReadTimeout("x"), httpx.ReadError("x"), httpx.RemoteProtocolError("x"), httpx.DecodingError("x")],
    ids=lambda error: type(error).__name__,
)
def test_a_connection_that_breaks_is_said(command: list[str], error: httpx.RequestError) -> None:
    def breaking(_: httpx.Request) -> httpx.Response:
        raise error

    assert_said(invoke(command, httpx.MockTransport(breaking)), 3)


@asking
@pytest.mark.parametrize("status", [301, 401, 409, 503])
@pytest.mark.parametrize(
    "body", [{"json": {"error": {"message": "no"}}}, {"json": {"error": "no"}}, {"text": "<p>"}]
)
def test_a_refusal_in_whatever_form_is_said(command: list[str], status: int, body: dict[str, Any]) -> None:
    answer = httpx.MockTransport(lambda _: httpx.Response(status, headers={"location": "http://x"}, **body))
    assert_said(invoke(command, answer), 1, 3)


@asking
def test_ctrl_c_is_no_traceback(command: list[str]) -> None:
    def interrupted(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    result = invoke(command, httpx.MockTransport(interrupted))
    assert result.exit_code == 130 and "Traceback" not in result.output


@pytest.mark.parametrize(
    "what", ["none", "file", LONG, "a\nb", "~nobody", "loop"], ids=lambda text: ascii(text)[:12]
)
@pytest.mark.parametrize(
    "command",
    [
        ["adapters", "verify"],
        ["adapters", "export"],
        ["adapters", "add", "support"],
        ["check"],
        ["check", "--json"],
        ["who-shares"],
        ["build", "--fleet"],
    ],
)
def test_a_path_that_holds_nothing_of_use_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"\0\xff")
    (tmp_path / "loop").symlink_to("loop")
    refusing = httpx.MockTransport(lambda _: httpx.Response(404, json={"error": {"message": "none"}}))
    result = invoke([*command, what], refusing)
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code in (1, 2)
    assert 0 < len(result.output) < 12_000


@pytest.mark.parametrize("out", ["closed", "full"])
def test_output_that_nobody_takes_is_no_traceback(out: str) -> None:
    """Of a process: `| head`, or a disk that is full."""
    reading, writing = os.pipe()
    os.close(reading)
    if out == "full":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "tenantry", "--help"],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr and b"Exception ignored" not in ended.stderr
    assert (b"No space left" in ended.stderr) == (out == "full")
