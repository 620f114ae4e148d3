"""Where are the replicas, and when does that change?"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.replicas.client import Address
from routing.replicas.discovery import (
    FILE_VARIABLE,
    MAX_FILE_BYTES,
    SERVICES_VARIABLE,
    URLS_VARIABLE,
    Elsewhere,
    FileDiscovery,
    StaticDiscovery,
    parse_addresses,
    parse_services,
    parse_urls,
)
from routing.replicas.kubernetes import Cluster, SliceDiscovery

A, B, C = "http://10.0.0.1:3410", "http://10.0.0.2:3410", "unix:///run/engine.sock"
Step = Callable[[], object]


class Over(Exception):
    """Nothing more happens."""


class Looks:
    """Stands in for sleeping: after each look something happens, after the last one it is over."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)

    async def __call__(self, seconds: float) -> None:
        assert seconds > 0
        if not self._steps:
            raise Over
        self._steps.pop(0)()


def nothing() -> None:
    """One more look at the same file."""


def write(path: Path, text: str) -> Step:
    """Write in place."""
    return lambda: path.write_text(text)


def rename(path: Path, text: str) -> Step:
    """Put another file in its place."""

    def step() -> None:
        other = path.with_suffix(".new")
        other.write_text(text)
        other.rename(path)

    return step


async def watched(path: Path, *steps: Step) -> list[dict[str, str]]:
    """What a watch of the file yields while all that happens."""
    seen = []
    with pytest.raises(Over):
        async for addresses in FileDiscovery(path, check_url=Address.parse, sleep=Looks(*steps)).watch():
            seen.append(dict(addresses))
    return seen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engines.yaml"


# -- known at start ----------------------------------------------------------------------------------------


async def test_static_replicas_are_asked_for_when_watching_begins_and_said_once() -> None:
    addresses: dict[str, str] = {}
    discovery = StaticDiscovery(lambda: addresses)
    addresses["shared-0"] = A
    assert [found async for found in discovery.watch()] == [{"shared-0": A}]


# -- what the environment says -----------------------------------------------------------------------------


async def test_without_variables_every_replica_runs_here() -> None:
    elsewhere = Elsewhere.read({}, Address.parse)
    assert not elsewhere.has("shared-0")
    discovery = elsewhere.discovery(lambda: {"shared-0": A}, Address.parse)
    assert discovery.is_static and discovery.is_started_here("shared-0")
    assert [known async for known in discovery.watch()] == [{"shared-0": A}]


async def test_replicas_with_a_url_run_elsewhere_and_the_others_here() -> None:
    elsewhere = Elsewhere.read({URLS_VARIABLE: f" shared-1={B} "}, Address.parse)
    assert elsewhere.has("shared-1") and not elsewhere.has("shared-0")
    discovery = elsewhere.discovery(lambda: {"shared-0": A}, Address.parse)
    assert [known async for known in discovery.watch()] == [{"shared-0": A, "shared-1": B}]


@pytest.mark.parametrize("urls", ["", "  "])
async def test_with_a_file_every_replica_runs_elsewhere(path: Path, urls: str) -> None:
    elsewhere = Elsewhere.read({FILE_VARIABLE: str(path), URLS_VARIABLE: urls}, Address.parse)
    assert elsewhere.has("shared-0") and elsewhere.has("anybody")
    write(path, f"shared-0: {A}")()
    discovery = elsewhere.discovery(dict, Address.parse)
    assert isinstance(discovery, FileDiscovery) and not discovery.is_static
    assert not discovery.is_started_here("shared-0")
    assert await anext(discovery.watch()) == {"shared-0": A}


def test_with_services_every_replica_runs_elsewhere(tmp_path: Path) -> None:
    cluster = Cluster("https://10.96.0.1:443", "tenantry", tmp_path / "token", None)
    elsewhere = Elsewhere({}, services=("large", "shared"), cluster=cluster)
    assert elsewhere.has("shared-0") and elsewhere.has("anybody")
    discovery = elsewhere.discovery(dict, Address.parse)
    assert isinstance(discovery, SliceDiscovery) and not discovery.is_static
    assert not discovery.is_started_here("shared-0")


def test_services_in_a_variable_are_names_each_once() -> None:
    assert parse_services(" shared large\nshared ") == ("large", "shared")


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        (
            {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"},
            "https://10.96.0.1:6443",
        ),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1"}, "https://[fd00::1]:443"),
    ],
)
def test_a_pod_knows_its_cluster(tmp_path: Path, environ: dict[str, str], url: str) -> None:
    (tmp_path / "namespace").write_text("models\n")
    cluster = Cluster.of_pod(environ, tmp_path)
    assert cluster == Cluster(url, "models", tmp_path / "token", tmp_path / "ca.crt")


def test_a_pod_without_a_service_account_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="automountServiceAccountToken"):
        Cluster.of_pod({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, tmp_path)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({URLS_VARIABLE: f"shared-0={A}", FILE_VARIABLE: "/engines.yaml"}, "are set together"),
        ({SERVICES_VARIABLE: "shared", FILE_VARIABLE: "/engines.yaml"}, "are set together"),
        ({SERVICES_VARIABLE: "shared"}, f"{SERVICES_VARIABLE}: this process runs in no pod"),
        ({SERVICES_VARIABLE: "shared Large"}, f"{SERVICES_VARIABLE}: 'Large' cannot be a Service"),
        ({SERVICES_VARIABLE: "a.b"}, f"{SERVICES_VARIABLE}: 'a.b' cannot be a Service"),
        ({SERVICES_VARIABLE: "x" * 64}, f"{SERVICES_VARIABLE}: 'x+' cannot be a Service"),
        ({URLS_VARIABLE: "shared-0"}, f"{URLS_VARIABLE}: '' is not the address"),
        ({URLS_VARIABLE: f"={A}"}, f"{URLS_VARIABLE}: .* belongs to no replica"),
        ({URLS_VARIABLE: f"x={A} x={B}"}, f"{URLS_VARIABLE}: .* named twice"),
    ],
)
def test_a_variable_that_is_wrong_is_named(environ: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Elsewhere.read(environ, Address.parse)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", {}),
        (f"shared-0={A}", {"shared-0": A}),
        (f"  shared-0={A}\n umbrella-0={C} ", {"shared-0": A, "umbrella-0": C}),
        ("shared-0=http://host/?a=b", {"shared-0": "http://host/?a=b"}),
    ],
)
def test_urls_in_a_variable_are_pairs(text: str, addresses: dict[str, str]) -> None:
    assert parse_urls(text, Address.parse) == addresses


@pytest.mark.parametrize(
    "text",
    ["shared-0", "shared-0=", f"={A}", A, f"a={A} a={B}"]
    + [
        f"a={url}"
        for url in ("ftp://host", "http://10.0.0.1:99999", "http://h:-1", "http://h:0", "http://h:x")
    ]
    + [f"a={url}" for url in ("http://", "http://:3410", "https://@:80", "http://[::1", "http://[x]:1")],
)
def test_anything_else_in_the_variable_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"address of a replica|belongs to no replica|named twice"):
        parse_urls(text, Address.parse)


# -- a file's content --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "addresses"),
    [
        (f"shared-0: {A}\nshared-1: {B}\n", {"shared-0": A, "shared-1": B}),
        (json.dumps({"shared-0": A}), {"shared-0": A}),
        (f"\ufeff# ours\n\"shared-0\": '{C}'", {"shared-0": C}),
        (f"1: {A}\non: {B}\n", {"1": A, "on": B}),  # names are text, whatever they look like
        ("{}", {}),
    ],
)
def test_a_file_is_a_mapping_in_yaml_or_json(content: str, addresses: dict[str, str]) -> None:
    assert parse_addresses(content.encode(), Address.parse) == addresses


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# nothing\n",
        b"shared-0",
        b"- shared-0: http://host",
        b"shared-0: [http://host]",
        b"shared-0: {url: http://host}",
        b"[shared-0]: http://host",
        b"shared-0:",
        b"shared-0: null",
        b"shared-0: ftp://host",
        b"'': http://host",
        b"a: http://host\na: http://other",
        b'{"a": "http://host"',
        b"a: http://host\n---\na: http://host",
        b"<<: *nobody",
        b"a: \xff",
        b"\x00",
        b"[" * 5000,
        b"a: http://host\n" + b"#" * MAX_FILE_BYTES,
    ],
)
def test_what_is_not_one_is_an_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_addresses(content, Address.parse)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "ignore")))
def test_no_content_does_worse_than_be_an_error(content: bytes) -> None:
    try:
        addresses = parse_addresses(content, Address.parse)
    except ValueError:
        return
    assert all(name and Address.parse(url) for name, url in addresses.items())


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9._-]*", fullmatch=True), st.sampled_from([A, B, C])))
def test_json_that_a_program_writes_is_read_back(addresses: dict[str, str]) -> None:
    assert parse_addresses(json.dumps(addresses).encode(), Address.parse) == addresses


# -- a file's life -----------------------------------------------------------------------------------------


async def test_a_file_is_said_at_once_and_again_when_it_has_changed(path: Path) -> None:
    write(path, f"shared-0: {A}")()
    looks = [nothing, rename(path, f"shared-0: {B}"), nothing, rename(path, "{}"), nothing, nothing]
    assert await watched(path, *looks) == [{"shared-0": A}, {"shared-0": B}, {}]


async def test_a_file_that_is_only_touched_or_says_the_same_is_no_change(path: Path) -> None:
    write(path, f"shared-0: {A}")()
    looks: list[Step] = [partial(os.utime, path, (1, 1)), nothing]
    looks += [rename(path, f'{{"shared-0": "{A}"}}'), nothing, nothing]
    assert await watched(path, *looks) == [{"shared-0": A}]


async def test_a_file_that_is_being_written_is_not_taken_for_a_shorter_one(path: Path) -> None:
    write(path, f"shared-0: {A}\nshared-1: {B}\n")()
    growing = ["", f"shared-0: {A}\n", f"shared-0: {A}\nshared-1: {B}\n", f"shared-0: {A}\nshared-1: {C}\n"]
    looks = [write(path, text) for text in growing]
    both = [{"shared-0": A, "shared-1": B}, {"shared-0": A, "shared-1": C}]
    assert await watched(path, *looks, nothing, nothing) == both


async def test_a_file_that_comes_later_is_waited_for(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert await watched(path, nothing, nothing, write(path, f"shared-0: {A}"), nothing) == [{"shared-0": A}]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "No such file" in caplog.messages[0]


@pytest.mark.parametrize("bad", ["", "shared-0: ftp://host", "shared-0", "shared-0: a: b"])
async def test_bad_content_keeps_the_last_good_one_and_is_logged_once(
    path: Path, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write(path, f"shared-0: {A}")()
    looks = [rename(path, bad), nothing, nothing, rename(path, bad), nothing, rename(path, f"shared-0: {B}")]
    assert await watched(path, *looks, nothing) == [{"shared-0": A}, {"shared-0": B}]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert str(path) in caplog.messages[0]


async def test_a_file_that_goes_away_and_comes_back_keeps_its_replicas(path: Path) -> None:
    write(path, f"shared-0: {A}")()
    looks = [path.unlink, nothing, nothing, write(path, f"shared-0: {A}"), nothing, nothing]
    assert await watched(path, *looks) == [{"shared-0": A}]


async def test_a_file_that_cannot_be_reached_for_a_while_is_good_again_when_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its folder goes and comes back, as a file system does; nothing of the file itself has changed."""
    caplog.set_level(logging.INFO)
    folder, away = tmp_path / "mounted", tmp_path / "away"
    os.mkdir(folder)
    path = folder / "engines.yaml"
    write(path, f"shared-0: {A}")()
    looks: list[Step] = [
        partial(folder.rename, away),
        nothing,
        nothing,
        partial(away.rename, folder),
        nothing,
    ]
    assert await watched(path, *looks) == [{"shared-0": A}]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_file_that_stays_as_it_is_is_read_once(path: Path) -> None:
    checked: list[str] = []
    write(path, f"shared-0: {A}")()
    discovery = FileDiscovery(path, check_url=checked.append, sleep=Looks(*[nothing] * 5))
    with pytest.raises(Over):
        async for _ in discovery.watch():
            pass
    assert checked == [A]


async def test_a_folder_in_its_place_is_bad_content(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkdir(path)
    looks = [nothing, nothing, path.rmdir, write(path, f"shared-0: {A}"), nothing]
    assert await watched(path, *looks) == [{"shared-0": A}]
    assert "directory" in caplog.messages[0]


async def test_links_are_followed_as_a_config_map_swaps_them(tmp_path: Path) -> None:
    """Kubernetes renames the link `..data` to another folder; the file's own link never changes."""
    for version, url in (("v1", A), ("v2", B)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "engines.yaml").write_text(f"shared-0: {url}")
    data, path = tmp_path / "..data", tmp_path / "engines.yaml"
    data.symlink_to("v1")
    path.symlink_to("..data/engines.yaml")

    def swap() -> None:
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").rename(data)

    assert await watched(path, swap, nothing, nothing) == [{"shared-0": A}, {"shared-0": B}]
