"""The command line against the admin API itself: what it sends, what it prints, how it exits."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from rich.console import Console
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner, Result

from adapters import model_store
from adapters.states import VersionState
from engines.health import EngineHealth, EngineState
from routing.catalog.entries import AdapterKey, Rollout, RolloutPlan, Version
from routing.catalog.sources import Remote
from routing.lifecycle.ports import VersionProgress
from tenantry import adding
from tenantry.adapters import share
from tenantry.app import app
from tenantry.client import KEY_VARIABLE, URL_VARIABLE
from tenantry.running import Connection
from tests.unit.fleet.files import adapter_folder
from tests.unit.routing.admin import fakes
from tests.unit.routing.admin.fakes import QUARANTINED, READY, Desk, figures, report

GATEWAY_COMMANDS = [
    ["add", "support", "hf://a/b"],
    ["list"],
    ["show", "support"],
    ["promote", "support"],
    ["rollback", "support"],
    ["rollout", "support", "2", "--weight", "10%"],
    ["pin", "support"],
    ["unpin", "support"],
    ["retire", "support"],
    ["retry", "support", "1"],
    ["replicas"],
    ["export", "support"],
]
OFFLINE_COMMANDS = [["verify", "folder"], ["import-bento", "name:1"]]
Run = Callable[..., Result]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An admin API that takes archives of up to 100 kB."""
    return fakes.desk(tmp_path / "gateway", max_upload_bytes=100_000)


@pytest.fixture
def run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command against the admin API, with acme's key if no other is given."""
    monkeypatch.setattr(adding, "POLL_S", 0.0)
    monkeypatch.delenv(URL_VARIABLE, raising=False)

    def run(
        *arguments: str,
        key: str | None = "acme-key",
        transport: httpx.AsyncBaseTransport | None = None,
        columns: int = 200,
    ) -> Result:
        connection = Connection(transport or httpx.ASGITransport(desk.app))
        environment = {KEY_VARIABLE: key, "COLUMNS": str(columns)}
        group = [] if arguments[0] == "replicas" else ["adapters"]
        return CliRunner().invoke(app, [*group, *arguments], obj=connection, env=environment)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter's folder, with something in it that nobody serves."""
    folder = trained(adapter_folder(tmp_path / "support"))
    (folder / "README.md").write_text("private notes")
    return folder


# -- how commands end --------------------------------------------------------------------------------------


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in GATEWAY_COMMANDS + OFFLINE_COMMANDS:
        assert command[0] in result.stdout or command == ["replicas"]
        assert run(command[0], "--help").exit_code == 0


@pytest.mark.parametrize("command", GATEWAY_COMMANDS, ids=" ".join)
def test_without_a_key_nothing_is_asked(run: Run, command: list[str]) -> None:
    result = run(*command, key=None, transport=never())
    assert result.exit_code == 2
    assert KEY_VARIABLE in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", GATEWAY_COMMANDS, ids=" ".join)
def test_a_wrong_key_is_named_as_what_is_wrong(run: Run, command: list[str]) -> None:
    result = run(*command, key="somebody-elses-key")
    assert result.exit_code == 1
    assert KEY_VARIABLE in result.stderr
    assert "somebody-elses-key" not in result.output


def test_a_key_that_only_calls_models_is_told_so(run: Run) -> None:
    result = run("list", key="calls-key")
    assert result.exit_code == 1
    assert "role `adapters`" in result.stderr


@pytest.mark.parametrize("key", ["with space", "umlaut-ü", "line\nbreak", " "])
def test_a_key_that_no_header_can_carry_is_refused(run: Run, key: str) -> None:
    result = run("list", key=key, transport=never())
    assert result.exit_code == 2
    assert KEY_VARIABLE in result.stderr


@pytest.mark.parametrize("command", GATEWAY_COMMANDS, ids=" ".join)
def test_where_nothing_listens_the_exit_code_is_3(run: Run, command: list[str]) -> None:
    result = run(*command, transport=raising(httpx.ConnectError("refused")))
    assert result.exit_code == 3
    assert "http://localhost:3000" in result.stderr
    assert "--url" in result.stderr


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>it works</html>"),
        httpx.Response(200, json=[]),
        httpx.Response(502, text="bad gateway"),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(302, headers={"location": "http://elsewhere/"}),
    ],
    ids=["page", "list", "proxy", "other service", "redirect"],
)
def test_what_is_no_gateway_is_not_taken_for_one(run: Run, answer: httpx.Response) -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return answer

    result = run("show", "support", transport=httpx.MockTransport(handle))
    assert result.exit_code == 3
    assert "no admin API" in result.stderr
    assert asked == ["localhost"]


@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut off")])
def test_a_connection_that_breaks_is_a_3(run: Run, error: httpx.TransportError) -> None:
    assert run("rollback", "support", transport=raising(error)).exit_code == 3


@pytest.mark.parametrize("url", ["ftp://host", "host:3000", "", "http://", "http://key@host"])
def test_what_is_no_url_is_wrong_use(run: Run, url: str) -> None:
    assert run("list", "--url", url, transport=never()).exit_code == 2


def test_the_gateway_comes_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, "https://gateway.example:8443/")
    result = run("list", transport=raising(httpx.ConnectError("refused")))
    assert "https://gateway.example:8443." in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["show"],
        ["show", "../keys"],
        ["show", "a/b"],
        ["show", ".."],
        ["show", ""],
        ["rollout", "support", "0", "--weight", "10%"],
        ["rollout", "support", "2"],
        ["rollout", "support", "2", "--weight", "0%"],
        ["rollout", "support", "2", "--weight", "nan"],
        ["verify", "folder", "--base", "no-such-base"],
        ["add", "support", "hf://a/b", "--canary", "many"],
        ["add", "support", "hf://a/b", "--promote-after", "0"],
        ["add", "support", "no-such-folder"],
        ["retire", "support", "--version", "x"],
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments, transport=never()).exit_code == 2


@pytest.mark.parametrize(
    ("command", "key", "transport", "code"),
    [
        (["show", "support"], "acme-key", None, "adapter_not_found"),
        (["replicas"], "acme-key", None, "forbidden"),
        (["list", "--state", "broken"], "acme-key", None, "invalid_value"),
        (["list"], None, None, "wrong_use"),
        (["list"], "k", httpx.ConnectError("no"), "unreachable"),
    ],
)
def test_json_prints_errors_as_json_too(
    run: Run, command: list[str], key: str | None, transport: Any, code: str
) -> None:
    result = run(*command, "--json", key=key, transport=raising(transport) if transport else None)
    assert result.exit_code != 0
    error = json.loads(result.stdout)["error"]
    assert error["code"] == code
    assert error["message"]
    assert result.stderr == ""


def test_a_database_that_is_gone_is_told(run: Run, desk: Desk) -> None:
    desk.management.put("support")
    desk.management.gone = True
    result = run("pin", "support")
    assert result.exit_code == 1
    assert "state database" in result.stderr


def test_the_guide_shows_commands_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "adapters.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama-3-8b").mkdir()
    shown = re.findall(r"^tenantry (.+)$", guide, re.MULTILINE)
    assert len(shown) > 15
    for line in shown:
        command, words = get_command(app), shlex.split(line, comments=True)
        while isinstance(command, TyperGroup):
            name = words.pop(0)
            assert name in command.commands, line
            command = command.commands[name]
        command.make_context(line, words)  # raises for wrong use
    adapters = cast(TyperGroup, cast(TyperGroup, get_command(app)).commands["adapters"])
    assert {line.split()[1] for line in shown if line.startswith("adapters ")} == set(adapters.commands)


# -- adding ------------------------------------------------------------------------------------------------


def test_a_folder_is_packed_uploaded_and_watched_until_it_is_ready(
    run: Run, desk: Desk, folder: Path
) -> None:
    states = (VersionState.REGISTERED, VersionState.FETCHING, VersionState.VERIFYING, READY)
    desk.management.steps.extend((state, "") for state in states)
    result = run("add", "support", str(folder), "--base-model", "base")
    assert result.exit_code == 0, result.output
    assert "acme/support version 1 is ready and answers 100 % of the requests" in result.stdout
    for state in states:
        assert f"version 1: {state}" in result.stderr
    _, key, base_model, new = desk.management.calls[0]
    assert (key, base_model) == (("acme", "support"), "base")
    (archive,) = desk.management.uploads
    assert new.sha256 == hashlib.sha256(archive).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == ["adapter_config.json", "adapter_model.safetensors"]
        for member in tar.getmembers():
            packed = tar.extractfile(member)
            assert packed is not None
            assert packed.read() == (folder / member.name).read_bytes()


@pytest.mark.parametrize("name", ["adapter.tar", "adapter.tar.gz", "ADAPTER.TGZ", "adapter.zip"])
def test_an_archive_is_uploaded_as_it_is(run: Run, desk: Desk, tmp_path: Path, name: str) -> None:
    archive = tmp_path / name
    archive.write_bytes(b"packed" * 1000)
    promised = hashlib.sha256(archive.read_bytes()).hexdigest().upper()
    assert run("add", "support", str(archive), "--sha256", promised, "--no-wait").exit_code == 0
    assert desk.management.uploads == [archive.read_bytes()]


def test_a_url_is_left_to_the_gateway(run: Run, desk: Desk) -> None:
    arguments = ("--canary", "10%", "--promote-after", "100", "--tenant", "acme", "--sha256", "AB" * 32)
    result = run("add", "support", "hf://acme/x", *arguments, "--no-wait", key="operator-key")
    assert result.exit_code == 0, result.output
    _, key, base_model, new = desk.management.calls[0]
    assert (key, base_model) == (("acme", "support"), None)
    assert (new.source, new.sha256) == ("hf://acme/x", "ab" * 32)
    assert new.rollout == RolloutPlan(weight=0.1, promote_after=100)


def test_an_upload_takes_its_rollout_along(run: Run, desk: Desk, folder: Path) -> None:
    assert run("add", "support", str(folder), "--canary", "0.25", "--no-wait").exit_code == 0
    assert desk.management.calls[0][3].rollout == RolloutPlan(weight=0.25)


def test_without_waiting_it_returns_once_registered(run: Run, desk: Desk) -> None:
    result = run("add", "support", "hf://a/b", "--no-wait")
    assert result.exit_code == 0
    assert "version 1 is registered" in result.stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_an_adapter_that_is_refused_exits_with_1_and_the_reason(run: Run, desk: Desk, as_json: bool) -> None:
    desk.management.steps.extend([(VersionState.VERIFYING, ""), (QUARANTINED, "lora_A holds NaN")])
    result = run("add", "support", "hf://a/b", *(["--json"] if as_json else []))
    assert result.exit_code == 1
    if as_json:
        version = json.loads(result.stdout)
        assert (version["state"], version["reason"]) == ("quarantined", "lora_A holds NaN")
        assert result.stderr == ""
    else:
        assert "Version 1 is quarantined: lora_A holds NaN" in result.stderr


def test_waiting_ends_in_time_and_says_that_the_work_goes_on(run: Run, desk: Desk) -> None:
    result = run("add", "support", "hf://a/b", "--timeout", "0")
    assert result.exit_code == 1
    assert "it goes on" in result.stderr


def test_a_gateway_that_restarts_meanwhile_is_waited_for(run: Run, desk: Desk) -> None:
    desk.management.steps.extend([(VersionState.FETCHING, ""), (READY, "")])
    flaky = Flaky(httpx.ASGITransport(desk.app), failures=5)
    assert run("add", "support", "hf://a/b", transport=flaky).exit_code == 0
    assert flaky.failures == 0


def test_a_gateway_that_stays_away_is_not_waited_for_for_ever(run: Run, desk: Desk) -> None:
    flaky = Flaky(httpx.ASGITransport(desk.app), failures=10_000)
    assert run("add", "support", "hf://a/b", transport=flaky).exit_code == 3
    assert flaky.failures > 9_000


def test_a_folder_that_is_no_adapter_is_not_sent(run: Run, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    result = run("add", "support", str(tmp_path), transport=never())
    assert result.exit_code == 1
    assert "adapter_model.safetensors" in result.stderr


def test_a_file_that_is_no_archive_is_not_sent(run: Run, folder: Path) -> None:
    result = run("add", "support", str(folder / "adapter_model.safetensors"), transport=never())
    assert result.exit_code == 2
    assert ".tar.gz" in result.stderr


@pytest.mark.parametrize("what", ["folder", "archive"])
def test_other_content_than_promised_is_not_sent(run: Run, folder: Path, tmp_path: Path, what: str) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"x")
    source = folder if what == "folder" else archive
    result = run("add", "support", str(source), "--sha256", "0" * 64, transport=never())
    assert result.exit_code == 1
    assert "sha256" in result.stderr


def test_an_upload_that_is_too_large_is_refused_with_the_bound(run: Run, desk: Desk, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(bytes(100_001))
    result = run("add", "support", str(archive))
    assert result.exit_code == 1
    assert "100000 bytes" in result.stderr


def test_a_fetch_shows_how_far_it_is(desk: Desk, run: Run) -> None:
    desk.management.fetching = VersionProgress(5, 10)
    desk.management.steps.extend([(VersionState.FETCHING, ""), (READY, "")])
    result = run("add", "support", "hf://a/b", "--json")
    assert json.loads(result.stdout)["state"] == "ready"


def test_on_a_terminal_bars_show_upload_and_fetch() -> None:
    terminal = Console(force_terminal=True, width=120, file=io.StringIO(), record=True)
    version = {
        "number": 1,
        "state": "fetching",
        "reason": "",
        "progress": {"done_bytes": 5, "total_bytes": 10},
    }
    with adding.watching(terminal, silent=False) as watcher:
        sent = watcher.sending(10)
        sent(10)
        watcher.at({**version, "state": "registered", "progress": None})
        watcher.at(version)
    shown = terminal.export_text()
    assert "sending" in shown
    assert "fetching" in shown


@pytest.mark.parametrize("command", GATEWAY_COMMANDS, ids=" ".join)
def test_ctrl_c_says_that_the_gateway_goes_on(run: Run, command: list[str]) -> None:
    result = run(*command, transport=raising(KeyboardInterrupt()))
    assert result.exit_code == 130
    assert "goes on there" in result.stderr


def test_a_narrow_terminal_loses_nothing(run: Run, desk: Desk) -> None:
    name = "a" * 60
    desk.management.put(name)
    result = run("list", columns=40)
    assert result.stdout.count("a") >= 60
    assert "…" not in result.stdout


# -- showing and changing ----------------------------------------------------------------------------------


def test_a_list_has_a_line_for_each_adapter(run: Run, desk: Desk) -> None:
    desk.management.put("support", "acme", READY, READY, rollout=Rollout(2, RolloutPlan(weight=0.25)))
    desk.management.put("other", "globex")
    result = run("list", key="operator-key")
    assert result.exit_code == 0
    assert "25 % to 2" in result.stdout
    assert "2 adapters" in result.stdout
    assert "globex" not in run("list").stdout
    listed = json.loads(run("list", "--tenant", "globex", "--json", key="operator-key").stdout)
    assert [a["name"] for a in listed] == ["other"]


def test_a_list_of_many_pages_comes_whole(run: Run, desk: Desk) -> None:
    for number in range(2100):
        desk.management.put(f"a{number:04}")
    names = [a["name"] for a in json.loads(run("list", "--json").stdout)]
    assert len(names) == len(set(names)) == 2100


def test_an_adapter_is_shown_with_versions_traffic_and_residency(run: Run, desk: Desk) -> None:
    rollout = Rollout(2, RolloutPlan(weight=0.25, promote_after=500))
    desk.management.put(
        "support", "acme", READY, READY, QUARANTINED, rollout=rollout, previous=1, pinned=True
    )
    desk.management.reports = [report()]
    result = run("show", "support")
    assert result.exit_code == 0
    for text in ("75 %", "25 %", "quarantined", "shared-0:slot", "promoted after 500 requests", "pinned"):
        assert text in result.stdout
    assert [v["number"] for v in json.loads(run("show", "support", "--json").stdout)["versions"]] == [1, 2, 3]


CHANGES: list[tuple[list[str], tuple[Any, ...]]] = [
    (["promote", "support"], ("promote", None)),
    (["promote", "support", "2"], ("promote", 2)),
    (["rollback", "support"], ("rollback",)),
    (["rollout", "support", "2", "--weight", "50%"], ("rollout", 2, RolloutPlan(weight=0.5))),
    (
        ["rollout", "support", "2", "--weight", "0.5", "--promote-after", "9"],
        ("rollout", 2, RolloutPlan(weight=0.5, min_requests=9, promote_after=9)),
    ),
    (["pin", "support"], ("pin", True)),
    (["unpin", "support"], ("pin", False)),
    (["retire", "support"], ("retire", None)),
    (["retire", "support", "--version", "2"], ("retire", 2)),
    (["retry", "support", "2", "--no-wait"], ("verify", 2)),
]


@pytest.mark.parametrize(("arguments", "call"), CHANGES, ids=[" ".join(a) for a, _ in CHANGES])
@pytest.mark.parametrize("as_json", [False, True])
def test_every_change_reaches_the_gateway(
    run: Run, desk: Desk, arguments: list[str], call: tuple[Any, ...], as_json: bool
) -> None:
    key = desk.management.put("support", "acme", READY, READY, previous=1)
    result = run(*arguments, *(["--json"] if as_json else []))
    assert result.exit_code == 0, result.output
    assert desk.management.calls == [(call[0], key, *call[1:])]
    assert not as_json or json.loads(result.stdout)["tenant"] == "acme"


@pytest.mark.parametrize(("arguments", "call"), CHANGES, ids=[" ".join(a) for a, _ in CHANGES])
def test_another_tenant_s_adapter_cannot_be_changed(
    run: Run, desk: Desk, arguments: list[str], call: tuple[Any, ...]
) -> None:
    desk.management.put("support", "acme", READY, READY, previous=1)
    before = dict(desk.management.entries)
    assert run(*arguments, key="globex-key").exit_code == 1
    assert run(*arguments, "--tenant", "acme", key="globex-key").exit_code == 1
    assert desk.management.entries == before


def test_replicas_show_their_slots_and_what_failed(run: Run, desk: Desk) -> None:
    desk.management.reports = [report()]
    result = run("replicas", key="operator-key")
    assert "1 of 4" in result.stdout
    assert "globex/other@0123 failed (load, 2 times): x: broken" in result.stdout
    assert json.loads(run("replicas", "--json", key="operator-key").stdout)[0]["name"] == "shared-0"


def test_replicas_show_which_of_them_get_work(run: Run, desk: Desk) -> None:
    states: dict[str, dict[str, Any]] = {
        "shared-0": {},
        "shared-1": {"draining": True},
        "shared-2": {"trusted": False},
        "shared-3": {
            "ready": False,
            "told": EngineHealth(EngineState.FAILED, "No working C++ compiler\x1b[2J"),
        },
        "shared-4": {"ready": False},
    }
    desk.management.reports = [
        replace(report(), figures=figures(name, **changes)) for name, changes in states.items()
    ]
    shown = run("replicas", key="operator-key").stdout
    told = ("ready", "draining", "not_trusted", "failed", "not_ready")
    for name, state in zip(states, told, strict=True):
        assert re.search(rf"{name} +│ shared +│ {state} ", shown), shown
    assert "shared-3: No working C++ compiler" in shown and "\x1b" not in shown


def test_what_others_wrote_cannot_steer_the_terminal(run: Run, desk: Desk) -> None:
    key = AdapterKey("acme", "support")
    reason = "\x1b[2J\x07[bold red]gone[/] \u202e:smile:"
    desk.management.put(
        "support", versions=(Version(1, key, 1, Remote("hf://a/\x1b[31mb"), QUARANTINED, reason),)
    )
    result = run("show", "support")
    assert "[bold red]gone[/]" in result.stdout
    assert ":smile:" in result.stdout
    assert not set("\x1b\x07\u202e") & set(result.stdout)


# -- without a gateway -------------------------------------------------------------------------------------


def test_verify_describes_a_good_folder_without_a_key(run: Run, folder: Path) -> None:
    result = run("verify", str(folder), "--json", key=None, transport=never())
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["ok"], answer["rank"]) == (True, 8)
    assert "rank 8" in run("verify", str(folder), "--max-rank", "8").stdout


@pytest.mark.parametrize(
    ("broken", "arguments", "word"),
    [
        ("adapter_model.safetensors", [], "adapter_model.safetensors"),
        ("adapter_config.json", [], "adapter_config.json"),
        (None, ["--max-rank", "4"], "rank"),
    ],
)
def test_verify_refuses_with_the_reason(
    run: Run, folder: Path, broken: str | None, arguments: list[str], word: str
) -> None:
    if broken:
        (folder / broken).unlink()
    result = run("verify", str(folder), *arguments)
    assert result.exit_code == 1
    assert word in result.stderr
    answer = json.loads(run("verify", str(folder), *arguments, "--json").stdout)
    assert not answer["ok"]
    assert word in answer["problem"]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[tuple[Path, str, dict[str, str]]]:
    """A model store that remembers what was put into it, and has one adapter."""
    kept: list[tuple[Path, str, dict[str, str]]] = []

    def export(folder: Path, name: str, labels: dict[str, str]) -> str:
        kept.append((folder, name, labels))
        return f"{name}:1"

    monkeypatch.setattr(model_store, "export", export)
    monkeypatch.setattr(model_store, "resolve", lambda tag: folder)
    return kept


def test_a_folder_is_exported_without_a_gateway(
    run: Run, folder: Path, store: list[tuple[Path, str, dict[str, str]]]
) -> None:
    result = run("export", str(folder), "--json", key=None, transport=never())
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["tag"] == "support:1"
    assert store[0][:2] == (folder, "support")


def test_a_folder_that_is_no_adapter_is_not_exported(
    run: Run, folder: Path, store: list[tuple[Path, str, dict[str, str]]]
) -> None:
    (folder / "adapter_config.json").write_text("{}")
    assert run("export", str(folder)).exit_code == 1
    assert store == []


def test_the_live_version_is_exported_from_the_gateway_s_store(
    run: Run, desk: Desk, tmp_path: Path, store: list[tuple[Path, str, dict[str, str]]]
) -> None:
    desk.management.put("support", "acme", READY, READY, live=2)
    kept = trained(adapter_folder(tmp_path / "state" / "adapters" / "ab" / ("ab" * 32)))
    result = run("export", "support", "--state", str(tmp_path / "state"), "--name", "acme-support")
    assert result.exit_code == 0, result.output
    path, name, labels = store[0]
    assert (path, name) == (kept, "acme-support")
    assert (labels["tenant"], labels["adapter"], labels["version"]) == ("acme", "support", "2")


def test_an_export_elsewhere_than_on_the_gateway_s_machine_says_so(
    run: Run, desk: Desk, tmp_path: Path, store: list[tuple[Path, str, dict[str, str]]]
) -> None:
    desk.management.put("support")
    result = run("export", "support", "--state", str(tmp_path))
    assert result.exit_code == 2
    assert "--state" in result.stderr
    desk.management.put("support", "acme", QUARANTINED, live=None)
    assert run("export", "support", "--state", str(tmp_path)).exit_code == 1


def test_an_adapter_of_the_model_store_is_added(
    run: Run, desk: Desk, store: list[tuple[Path, str, dict[str, str]]]
) -> None:
    desk.management.steps.extend([(READY, "")])
    assert run("import-bento", "support:1").exit_code == 0
    assert desk.management.calls[0][1] == ("acme", "support")
    assert len(desk.management.uploads) == 1
    assert run("import-bento", "support:1", "--name", "other", "--no-wait").exit_code == 0
    assert desk.management.calls[1][1] == ("acme", "other")


# -- parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "weight"), [("10%", 0.1), ("0.1", 0.1), (" 100 % ", 1.0), ("1", 1.0)])
def test_a_part_of_the_requests_has_two_spellings(text: str, weight: float) -> None:
    assert share(text) == weight


def trained(folder: Path) -> Path:
    """Have no zeros in an adapter's weights."""
    weights = folder / "adapter_model.safetensors"
    content = weights.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    weights.write_bytes(content[:begin] + struct.pack("<f", 1.0) * ((len(content) - begin) // 4))
    return folder


def never() -> httpx.MockTransport:
    """A gateway that must not be asked."""

    def handle(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"{request.url} was asked")

    return httpx.MockTransport(handle)


def raising(error: BaseException) -> httpx.MockTransport:
    """A gateway that fails so."""

    def handle(request: httpx.Request) -> httpx.Response:
        raise error

    return httpx.MockTransport(handle)


class Flaky(httpx.AsyncBaseTransport):
    """A gateway that cannot be reached a number of times, once something was registered."""

    def __init__(self, inner: httpx.AsyncBaseTransport, failures: int) -> None:
        self._inner = inner
        self.failures = failures

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET" and self.failures:
            self.failures -= 1
            raise httpx.ConnectError("refused")
        return await self._inner.handle_async_request(request)
