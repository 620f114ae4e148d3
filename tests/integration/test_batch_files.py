"""What stands in files of batches: what is wrong with them, how editors write them, what breaks on disk."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import key_of
from tests.integration.conftest import Bench
from tests.integration.test_batches import jsonl, lines_of, openai, opened, request, run

WRONG_FILES = {
    "no JSON": (b"{", "invalid_json_line"),
    "no object": (b"[]", "invalid_request"),
    "no id": (jsonl({**request("x"), "custom_id": None}), "invalid_custom_id"),
    "an id twice": (jsonl(request("x"), request("x")), "duplicate_custom_id"),
    "another method": (jsonl({**request("x"), "method": "GET"}), "invalid_method"),
    "another route": (jsonl({**request("x"), "url": "/admin/v1/keys"}), "invalid_url"),
    "no body": (jsonl({**request("x"), "body": "text"}), "invalid_body"),
    "a stream": (jsonl(request("x", stream=True)), "invalid_body"),
    "a body too deep": (
        b'{"custom_id":"x","method":"POST","url":"/v1/chat/completions","body":{"a":'
        + b"[" * 300
        + b"]" * 300
        + b"}}",
        "invalid_body",
    ),
    "nothing": (b"\n \n", "empty_file"),
    "nothing but a mark": (codecs.BOM_UTF8 + b"\r\n", "empty_file"),
    "a mark in the middle": (codecs.BOM_UTF8 + jsonl(request("x")), "invalid_json_line"),
    "another encoding": (jsonl(request("x")).decode().strip().encode("utf-16-be"), "invalid_json_line"),
    "one giant line": (b'{"a":"' + b"x" * 5 * 2**20 + b'"}', "line_too_large"),
}


@pytest.mark.parametrize("content, code", WRONG_FILES.values(), ids=WRONG_FILES)
async def test_a_file_that_is_wrong_fails_as_a_whole_and_says_where(
    bench: Bench, content: bytes, code: str
) -> None:
    await opened(bench)
    async with openai(bench) as client:
        batch = await run(client, jsonl(request("fine")) + content if code != "empty_file" else content)
    assert batch.status == "failed" and batch.output_file_id is None
    assert [error.code for error in batch.errors.data] == [code]
    assert code == "empty_file" or batch.errors.data[0].line == content.count(b"\n", 0, -1) + 2
    assert not bench.engines["shared-0"].seen, "nothing ran"


ODD_FILES = {
    "no end of the last line": lambda lines: lines[:-1],
    "Windows' ends of lines, and empty ones": lambda lines: lines.replace(b"\n", b"\r\n\r\n"),
    "a mark at its beginning": lambda lines: codecs.BOM_UTF8 + lines,
    "spaces around": lambda lines: lines.replace(b"\n", b" \t\n "),
}


@pytest.mark.parametrize("write", ODD_FILES.values(), ids=ODD_FILES)
async def test_a_file_may_be_written_as_editors_do(bench: Bench, write: Callable[[bytes], bytes]) -> None:
    await opened(bench)
    ids = {"one", "t\u202ewo\n\0", "größer"}
    async with openai(bench) as client:
        batch = await run(client, write(jsonl(*map(request, sorted(ids)))))
        assert set(await lines_of(client, batch.output_file_id)) == ids


def spoil(folder: Path, name: str, broken: str) -> None:
    """Break a file on disk."""
    (path,) = folder.rglob(name)
    content = bytearray(path.read_bytes())
    content[2 * 2**20 if broken == "in the middle" else 20] ^= 1
    path.write_bytes(content)
    if broken == "gone":
        path.unlink()


@pytest.mark.parametrize("broken", ["in the middle", "at once", "gone"])
async def test_a_file_that_breaks_is_an_error_or_cut_off_and_never_two_answers(
    bench: Bench, tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    await opened(bench)
    async with openai(bench) as client:
        file = await client.files.create(file=("x", b"x" * 3 * 2**20), purpose="batch")
    spoil(tmp_path, file.id, broken)
    answer = await bench.get(f"/v1/files/{file.id}/content", key=key_of("a"))()
    if broken == "in the middle":
        assert answer.status == 200 and not answer.ended and set(answer.body) == {ord("x")}
        assert 0 < len(answer.body) < int(answer.headers["content-length"])
    else:
        told = {"at once": (500, "file_unreadable"), "gone": (503, "storage_unavailable")}
        assert (answer.status, answer.error["code"]) == told[broken]
    (record,) = [record for record in caplog.records if record.name == "tenantry.batches"]
    assert "cannot be read" in record.getMessage() and record.exc_info is None
