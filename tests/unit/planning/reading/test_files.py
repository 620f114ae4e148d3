"""Traces, tables and request logs: each layout that is told of, and each way in which one is bad."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fleet.types import Isolation
from planning.reading.request_log import read_log
from planning.reading.sources import read_demand
from planning.reading.trace_file import number_of, time_of
from planning.requests import DemandError
from planning.served import Served
from planning.values import Demand

NOW_S = 1_790_000_000.0


def read(path: Path, text: str) -> Demand:
    path.write_text(text)
    return read_demand(str(path), None, now_s=NOW_S).demand


@pytest.mark.parametrize(
    ("text", "unix", "model"),
    [
        ("time,model,prompt,completion\n0,m,10,5\n60,m,20,6\n", False, "m"),
        ("completion,prompt,model,time\n5,10,m,1700000000\n6,20,m,1700000060\n", True, "m"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,10,5\n"
            "2023-11-16 18:18:03.9799600,20,6\n",
            True,
            "file",
        ),
        (
            "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
            "5,m,10,5,15,Conversation log\n65,m,20,6,26,API log\n",
            False,
            "m",
        ),
        ("\ufefftime,model,prompt,completion\n1700000000000,m,10,5\n1700000060000,m,20,6\n", True, "m"),
    ],
    ids=["ours", "any order, Unix times", "Azure's", "BurstGPT's", "byte order mark, milliseconds"],
)
def test_a_trace_of_each_layout_is_read(tmp_path: Path, text: str, unix: bool, model: str) -> None:
    found = read(tmp_path / "file.csv", text)
    assert [one.model for one in found.models] == [model]
    assert (found.begins_s is not None) == unix
    assert found.duration_s == 60
    assert found.trace is not None
    assert found.trace.prompt.tolist() == [10, 20]
    assert found.trace.completion.tolist() == [5, 6]


def test_a_name_in_a_log_is_text_that_can_be_written(tmp_path: Path) -> None:
    line = '{"model": "a\\ud800b", "created": 1700000000, "usage": {"prompt_tokens": 1}}\n'
    found = read(tmp_path / "log", line * 2)
    assert [one.model.encode() for one in found.models] == [b"a?b"]


def test_a_trace_may_have_cached_tokens_and_tenants_and_lines_that_are_bad(tmp_path: Path) -> None:
    found = read(
        tmp_path / "t.csv",
        "time,model,prompt,completion,cached,tenant\n0,m,10,5,5,shop\n1,m,10,5,,\n2,m,many,5,0,\n\n3,m\n4,m,10,5,0,\n",
    )
    assert found.models[0].requests == 3
    assert found.models[0].tenants == ("shop",)
    assert found.models[0].cached == pytest.approx(5 / 30)
    assert found.notes[0].startswith("2 of 5 requests")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (5, 5.0),
        ("5.5", 5.5),
        (1.7e12, 1.7e9),
        (1.7e15, 1.7e9),
        ("1700000000000000000", 1.7e9),
        ("2023-11-14T22:13:20Z", 1.7e9),
        ("2023-11-14 23:13:20+01:00", 1.7e9),
    ],
)
def test_times_are_read_in_each_spelling(value: object, seconds: float) -> None:
    assert time_of(value) == seconds


@pytest.mark.parametrize("value", ["", "soon", None, True, [], "9999-99-99", 1e300, "-1e21"])
def test_what_is_no_time_is_none(value: object) -> None:
    assert math.isnan(time_of(value))


def test_numbers_of_thousands_of_digits_are_none() -> None:
    assert math.isnan(number_of(10**400))


def test_a_table_by_hand_is_read_from_csv_and_yaml(tmp_path: Path) -> None:
    of_csv = read(
        tmp_path / "t.csv",
        "model,requests/day,in,out,ttft_s,isolation,tenant\nchat,2400,800,150,1,dedicated,shop\nrare,3,100,10,,,\n",
    )
    of_yaml = read(
        tmp_path / "t.yaml",
        "- {model: rare, requests/day: 3, in: 100, out: 10}\n"
        "- {model: chat, requests per day: 2_400, in: 800, out: 150, ttft_s: 1, isolation: dedicated,"
        " tenant: shop}\n",
    )
    by_name = read(tmp_path / "u.yml", "rare: {rpd: 3, in: 100, out: 10, group: eu, burst: 3, cached: 0.5}\n")
    assert of_csv.models == of_yaml.models
    chat, rare = of_csv.models
    assert (chat.model, chat.requests, chat.hourly) == ("chat", 2400, (100.0,) * 24)
    assert (chat.ttft_s, chat.isolation, chat.tenants) == (1.0, Isolation.DEDICATED, ("shop",))
    assert chat.prompt.mean == 800
    assert (rare.ttft_s, rare.isolation) == (None, Isolation.SHARED)
    assert (by_name.models[0].group, by_name.models[0].burstiness, by_name.models[0].cached) == (
        "eu",
        3.0,
        0.5,
    )
    assert "knows no time of day" in of_csv.notes[0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it is empty"),
        ("\n- {requests/day: 3, in: 1, out: 1}", "line 2 has no `model`"),
        ("a: {requests/day: 3, in: 1, out: 1}\nb: 7", "line 2: it must be a list of models"),
        ("a: {rpd: 3, in: 1, out: 1}\na: {rpd: 4, in: 1, out: 1}", "line 1: `a`: again on line 2"),
        ("- {model: a, rpd: 3, requests/day: 3, in: 1, out: 1}", "line 1: `requests/day` is there twice"),
        ("- {model: [a], rpd: 3, in: 1, out: 1}", "line 1: `model` is a list"),
        ("- {model: a, rpd: 3, in: 1, out: 1, tenant: {b: c}}", "line 1: `tenant` is a list"),
        ("x: !!python/object:os.system {}", "line 1: .* tag .* is not taken here"),
        ("- {model: a, in: 1, out: 1}", "has no `requests/day`: how many requests a day"),
        ("- {model: a, requests/day: -3, in: 1, out: 1}", "`requests/day` is '-3'"),
        ("- {model: a, requests/day: .inf, in: 1, out: 1}", "`requests/day` is 'inf'"),
        ("- {model: a, requests/day: 1e15, in: 1, out: 1}", "a number from 0 to 1e"),
        ("- {model: a, requests/day: many, in: 1, out: 1}", "`requests/day` is 'many'"),
        ("- {model: a, requests/day: 1, in: 1, out: 1, isolation: alone}", "dedicated"),
        ("- {model: a, requests/day: 1, in: 1, out: 1, colour: red}", "'colour' is unknown"),
        ("[{model: a, requests/day: 1, in: 1, out: 1}, {model: a, requests/day: 1, in: 1, out: 1}]", "twice"),
        ("just text", "must be a list"),
        ("a: [1", "line 1: not YAML"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_entry(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(DemandError, match=what):
        read(tmp_path / "t.yaml", text)


def line(**changes: Any) -> dict[str, Any]:
    return {
        "time": "2026-01-31T12:00:10.000+00:00", "tenant": "shop", "model": "chat", "adapter": None,
        "replica": "pool-0", "outcome": "completed", "queue_s": 1.0, "first_byte_s": 1.5, "total_s": 5.0,
        "prompt_tokens": 100, "completion_tokens": 20, "cached_tokens": 40, "stream": True, **changes,
    }  # fmt: skip


def log(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    return path


def test_this_gateways_log_tells_requests_and_what_engines_did(tmp_path: Path) -> None:
    served = Served()
    path = log(tmp_path / "l", line(), line(model="tone", adapter="tone-lora"), line(outcome="failed"))
    found = read_log(path, served=served)
    assert found.model == ["shop/chat", "shop/tone-lora", "shop/chat"]
    assert found.took_s == [5.0, 5.0, 5.0]
    assert found.time_s[0] == pytest.approx(1_769_860_805.0)
    assert found.cached[0] == 40
    assert served.adapter == ["", "shop/tone-lora"]
    assert (served.run_s[0], served.first_s[0], served.fresh[0]) == (4.0, 0.5, 60)
    assert served.granted_s[0] == pytest.approx(found.time_s[0] + 1.0)


def test_others_logs_tell_requests_too(tmp_path: Path) -> None:
    spend = {
        "model": "gpt", "startTime": "2026-01-31 12:00:00", "endTime": "2026-01-31 12:00:04",
        "prompt_tokens": 100, "completion_tokens": 20, "team_id": "t",
    }  # fmt: skip
    answer = {
        "object": "chat.completion", "model": "gpt", "created": 1_769_860_800,
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}},
    }  # fmt: skip
    batch = {"custom_id": "1", "response": {"status_code": 200, "body": answer}}
    found = read_log(log(tmp_path / "l", spend, answer, batch))
    assert found.model == ["t/gpt", "gpt", "gpt"]
    assert found.prompt == [100, 9, 9]
    assert found.cached == [0, 8, 8]
    assert found.took_s[0] == 4.0
    assert found.time_s == [1_769_860_800.0] * 3


def test_lines_that_are_no_requests_are_passed_over(tmp_path: Path) -> None:
    path = log(tmp_path / "l.jsonl", line(), {"event": "started"})
    path.write_text(path.read_text() + "no json\n{\n[]\n" + '{"model": 5}\n{"model": "m", "usage": 7}\n')
    assert len(read_log(path)) == 1
    assert read_demand(str(path), None, now_s=NOW_S).demand.models[0].requests == 1


def test_a_log_without_a_request_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(DemandError, match="none of its 1 lines is a request"):
        read_log(log(tmp_path / "l", {"event": "started"}))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=repr)
def test_files_of_all_line_endings_and_with_empty_lines_are_read(tmp_path: Path, end: str) -> None:
    table = end.join(("", "model,requests/day,in,out", "a\u2028b,3,1,1", "", " , ,,", "  ", "c,4,1,1", ""))
    trace = end.join(("", "time,model,prompt,completion", "0,a,1,1", "", "60,a,1,1", ""))
    path = tmp_path / "f.csv"
    path.write_bytes(b"\xef\xbb\xbf" + table.encode())
    assert [one.model for one in read_demand(str(path), None, now_s=NOW_S).demand.models] == ["a\u2028b", "c"]
    path.write_bytes(trace.encode())
    assert read_demand(str(path), None, now_s=NOW_S).demand.models[0].requests == 2


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("model,requests/day,in,out\na,1,000,300,200\n", "line 2 has more cells than there are columns"),
        ("model,requests/day,in,out,in\na,1,2,3,4\n", "line 1: `in` is there twice"),
        ("model,requests/day,in,out,rpd\na,1,2,3,4\n", "line 1: `requests/day` is there twice"),
        ("model,requests/day,in\na,1,2\n", "line 1: there is no column `out`; a table has model, req"),
        ("\nmodel,in,out\na,1,2\n", "line 2: there is no column `requests/day`; a table has"),
        ("time,model,prompt\n1,a,2\n", "line 1: there is no column `completion`; a trace has time"),
        ("TIMESTAMP,GeneratedTokens\n1,2\n", "line 1: there is no column `prompt`; a trace has time"),
        ("model;requests/day;in;out\na;1;2;3\n", "line 1: columns are separated by ';'; separate them by"),
        ("time\tprompt\tcompletion\n1\t2\t3\n", "line 1: columns are separated by '.t'; separate them by"),
        ("time,model,prompt,completion\n1,a,1,000,20\n2,a,1,000,20\n", "2 of its 2 requests have a time"),
        ("time,model,prompt,completion\n1e300,a,1,1\n", "1 of its 1 requests have a time"),
    ],
)
def test_a_table_or_trace_of_other_columns_is_refused_with_the_line(
    tmp_path: Path, text: str, what: str
) -> None:
    with pytest.raises(DemandError, match=what):
        read(tmp_path / "f.csv", text)


def test_a_log_may_begin_with_what_is_no_request(tmp_path: Path) -> None:
    answer = json.dumps({"model": "m", "created": 1_700_000_000, "usage": {"prompt_tokens": 1}})
    found = read(tmp_path / "log", f"starting\n\nready on port 8000\n{answer}\n")
    assert found.models[0].requests == 1


@pytest.mark.parametrize("text", ["hello\n", "a,b,c\n1,2,3\n", "\x00\x01"])
def test_a_file_of_another_kind_is_refused_with_what_can_be_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(DemandError, match=r"f\.txt: it is none of what can be read: a trace"):
        read(tmp_path / "f.txt", text)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DemandError, match="No such file"):
        read_demand(str(tmp_path / "none.csv"), None, now_s=NOW_S)


def test_neither_a_source_nor_a_fleet_says_what_to_name() -> None:
    with pytest.raises(DemandError, match="name a fleet file"):
        read_demand(None, None, now_s=NOW_S)
