"""An archive at an https address, served here over http: whole, continued, cut short, gone, led elsewhere."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.errors import AdapterError, ChecksumMismatch, SourceUnavailable, StoreFull
from adapters.layout import WEIGHTS_FILE
from adapters.sources import FetchSettings, FetchStopped, download, fetching
from adapters.sources.address import parse
from adapters.sources.remote import Refused
from adapters.sources.web import WebArchive
from tests.unit.adapters.remotes import (
    Follower,
    Reply,
    Request,
    Server,
    contents,
    full_disk,
    http_server,
    ranged,
    served,
    tar,
    unused_port,
)


class Site:
    """A server of one archive, at /a.tar; a test may change what it does."""

    def __init__(self, folder: Path) -> None:
        self.files = served(folder / "made")
        self.archive = tar({**self.files, "padding": bytes(300_000)}, "w")
        self.etag = '"one"'
        self.server: Server
        self.answer: Callable[[Request], Reply] = self.whole

    @property
    def url(self) -> str:
        return f"{self.server.url}/a.tar"

    def whole(self, request: Request) -> Reply:
        return ranged(self.archive, request, {"ETag": self.etag})

    def starts(self) -> list[int]:
        """First bytes of the requests that read the archive."""
        return [request.start for request in self.server.requests]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    with http_server(lambda request: site.answer(request)) as server:
        site.server = server
        yield site


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "into"


def broken(site: Site, at: int, times: int = 1) -> Callable[[Request], Reply]:
    """Cut the connection after some bytes, a number of times, for whoever reads on from before."""
    whole = site.answer
    left = [times]

    def answer(request: Request) -> Reply:
        reply = whole(request)
        is_read = len(site.server.requests) > 1
        if is_read and left[0] and request.start < at:
            left[0] -= 1
            reply.cut = at - request.start
        return reply

    return answer


def test_an_archive_is_fetched_and_unpacked(site: Site, into: Path) -> None:
    follower = Follower()
    follower.fetch(f"{site.url}?sig=secret", into, sha256=hashlib.sha256(site.archive).hexdigest())
    assert contents(into) == site.files
    assert follower.seen[0] == (0, len(site.archive))
    assert follower.seen[-1] == (len(site.archive), len(site.archive))
    assert {request.path for request in site.server.requests} == {"/a.tar?sig=secret"}


def test_a_broken_connection_is_continued_where_it_broke(site: Site, into: Path) -> None:
    site.answer = broken(site, at=100_000)
    follower = Follower()
    follower.fetch(site.url, into)
    assert contents(into) == site.files
    assert 100_000 in site.starts()
    assert follower.waits == [0.5]


def test_what_a_stopped_fetch_left_is_continued_by_the_next_one(site: Site, into: Path) -> None:
    with pytest.raises(FetchStopped):
        Follower(stop_after=50_000).fetch(site.url, into)
    site.server.requests.clear()
    Follower().fetch(site.url, into)
    assert contents(into) == site.files
    assert max(site.starts()) >= 50_000


def test_a_server_that_knows_no_ranges_is_read_again_and_what_is_here_is_passed_over(
    site: Site, into: Path
) -> None:
    site.answer = lambda _: Reply(site.archive, headers={"ETag": site.etag})
    site.answer = broken(site, at=100_000)
    Follower().fetch(site.url, into)
    assert contents(into) == site.files


def test_an_archive_that_has_changed_since_is_begun_again(site: Site, into: Path) -> None:
    with pytest.raises(FetchStopped):
        Follower(stop_after=50_000).fetch(site.url, into)
    config, weights = site.files.items()
    site.files = dict([config, (weights[0], weights[1][:-4] + b"new!")])
    site.archive, site.etag = tar(site.files, "w"), '"two"'
    site.server.requests.clear()
    Follower().fetch(site.url, into)
    assert contents(into) == site.files
    assert set(site.starts()) == {0}


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}])
def test_without_a_strong_tag_nothing_is_continued(site: Site, into: Path, headers: dict[str, str]) -> None:
    site.answer = lambda request: ranged(site.archive, request, headers)
    with pytest.raises(FetchStopped):
        Follower(stop_after=50_000).fetch(site.url, into)
    site.server.requests.clear()
    Follower().fetch(site.url, into)
    assert contents(into) == site.files
    assert set(site.starts()) == {0}


def test_a_part_of_another_boot_of_the_machine_is_not_believed(
    site: Site, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FetchStopped):
        Follower(stop_after=50_000).fetch(site.url, into)
    (tmp_path / "boot_id").write_text("another")
    monkeypatch.setattr(download, "_BOOT_ID", tmp_path / "boot_id")
    site.server.requests.clear()
    Follower().fetch(site.url, into)
    assert set(site.starts()) == {0}


def test_a_change_in_the_middle_begins_again(site: Site, into: Path) -> None:
    whole = site.answer
    new = tar(site.files, "w")

    def answer(request: Request) -> Reply:
        reply = whole(request)
        if len(site.server.requests) == 2:
            site.archive, site.etag = new, '"two"'
            reply.cut = 100_000
        return reply

    site.answer = answer
    Follower().fetch(site.url, into)
    assert contents(into) == site.files


def test_a_server_that_answers_another_range_is_not_believed(site: Site, into: Path) -> None:
    site.answer = broken(site, at=100_000)
    cut = site.answer

    def answer(request: Request) -> Reply:
        reply = cut(request)
        if reply.status == 206:
            reply.headers["Content-Range"] = f"bytes 0-9/{len(site.archive)}"
        return reply

    site.answer = answer
    with pytest.raises(SourceUnavailable, match="another range"):
        Follower().fetch(site.url, into)


def test_a_source_that_vanishes_in_the_middle_may_come_back(site: Site, into: Path) -> None:
    whole = site.answer

    def answer(request: Request) -> Reply:
        reply = whole(request)
        if len(site.server.requests) == 2:
            reply.cut = 100_000
        return reply if len(site.server.requests) <= 2 else Reply(status=404)

    site.answer = answer
    with pytest.raises(SourceUnavailable, match="went away while it was fetched"):
        Follower().fetch(site.url, into)
    site.answer = whole
    site.server.requests.clear()
    Follower().fetch(site.url, into)
    assert contents(into) == site.files
    assert 100_000 in site.starts()


def test_a_server_that_keeps_breaking_off_is_given_up_with_what_came_kept(site: Site, into: Path) -> None:
    cut = broken(site, at=100_000)
    site.answer = lambda request: cut(request) if len(site.server.requests) < 3 else Reply(status=503)
    follower = Follower()
    with pytest.raises(SourceUnavailable, match=r"status 503; tried 4 times"):
        follower.fetch(site.url, into)
    assert follower.waits == [0.5, 1.0, 2.0]
    assert (into / ".archive.part").stat().st_size == 100_000


def test_a_server_that_is_not_there_is_unavailable(into: Path) -> None:
    with pytest.raises(SourceUnavailable, match="ConnectError"):
        Follower().fetch(f"http://127.0.0.1:{unused_port()}/a.tar", into)


@pytest.mark.parametrize(
    ("status", "what"),
    [(404, "nothing there"), (410, "nothing there"), (403, "may not be read"), (400, "400")],
)
def test_what_is_missing_or_forbidden_is_refused_at_once(
    site: Site, into: Path, status: int, what: str
) -> None:
    site.answer = lambda _: Reply(status=status)
    follower = Follower()
    with pytest.raises(AdapterError, match=what) as raised:
        follower.fetch(f"{site.url}?sig=secret", into)
    assert not isinstance(raised.value, SourceUnavailable)
    assert "secret" not in str(raised.value)
    assert follower.waits == []


def test_a_wrong_checksum_leaves_nothing(site: Site, into: Path) -> None:
    with pytest.raises(ChecksumMismatch):
        Follower().fetch(site.url, into, sha256="0" * 64)
    assert contents(into) == {}


def test_an_announced_size_over_the_limit_is_refused_unread(site: Site, into: Path) -> None:
    with pytest.raises(AdapterError, match="larger than 1 KiB"):
        Follower().fetch(site.url, into, max_bytes=1024)
    assert len(site.server.requests) == 1


def test_a_size_that_was_not_announced_is_bounded_as_it_comes(site: Site, into: Path) -> None:
    site.answer = lambda _: Reply(site.archive, with_length=False)
    with pytest.raises(AdapterError, match=r"larger than 97\.66 KiB"):
        Follower().fetch(site.url, into, max_bytes=100_000)
    assert contents(into) == {}
    follower = Follower()
    follower.fetch(site.url, into)
    assert contents(into) == site.files
    assert follower.seen[-1] == (len(site.archive), None)


def test_a_damaged_archive_is_refused_and_not_kept(site: Site, into: Path) -> None:
    site.archive = site.archive[:50_000]
    with pytest.raises(AdapterError, match="damaged or cut short"):
        Follower().fetch(site.url, into)
    assert contents(into) == {}


def test_an_archive_that_has_come_whole_is_not_fetched_again_when_unpacking_was_cut_short(
    site: Site, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fetching, "take_out", killed)
        with pytest.raises(KeyboardInterrupt):
            Follower().fetch(site.url, into)
    site.server.requests.clear()
    Follower().fetch(site.url, into)
    assert contents(into) == site.files
    assert len(site.server.requests) == 2


def test_a_full_disk_in_the_middle_leaves_nothing(
    site: Site, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "part_of", full_disk)
    with pytest.raises(StoreFull):
        Follower().fetch(site.url, into)
    assert contents(into) == {}


def test_a_fetch_takes_no_longer_than_it_may(site: Site, into: Path) -> None:
    with pytest.raises(SourceUnavailable, match="within -1 s"):
        Follower().fetch(site.url, into, settings=FetchSettings(timeout_s=-1))


def test_redirects_are_followed_and_counted(site: Site, into: Path) -> None:
    whole = site.answer
    hops = 5

    def answer(request: Request) -> Reply:
        number = int(request.path.strip("/").removesuffix(".tar").replace("a", str(hops)))
        target = f"/{number - 1}.tar?sig=secret"
        return Reply(status=302, headers={"Location": target}) if number > 0 else whole(request)

    site.answer = lambda request: answer(Request(request.path.partition("?")[0], request.headers))
    Follower().fetch(site.url, into)
    assert contents(into) == site.files
    hops = 6
    with pytest.raises(AdapterError, match="more than 5 times") as raised:
        Follower().fetch(site.url, into)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "target", ["http://example.com/a.tar", "ftp://127.0.0.1/a", "file:///etc/passwd", ""]
)
def test_a_redirect_that_leaves_https_is_refused(site: Site, into: Path, target: str) -> None:
    site.answer = lambda request: Reply(status=302, headers={"Location": target})
    with pytest.raises(AdapterError, match="redirects"):
        Follower().fetch(site.url, into)


@pytest.mark.parametrize(
    "target",
    [
        "http://files.example.com/a.tar",
        "http://[::bad",
        "https://127.0.0.1/a.tar",
        "https://localhost:8443/a.tar",
        "https://[::1]/a.tar",
        "https://10.0.0.1/a.tar",
        "https://2130706433/a.tar",
        "https://0x7f000001/a.tar",
        "https://localhost./a.tar",
        "https://169.254.169.254/latest/meta-data",
        "https://user:secret@example.com/a.tar",
    ],
)
def test_a_public_source_does_not_lead_into_this_network(target: str) -> None:
    remote = WebArchive(parse("https://example.com/a.tar"))
    try:
        assert remote._redirected("https://example.com/a.tar", "/b.tar") == "https://example.com/b.tar"
        with pytest.raises(Refused, match="not public https") as raised:
            remote._redirected("https://example.com/a.tar", target)
        assert "secret" not in str(raised.value)
    finally:
        remote.close()


def test_signatures_stay_out_of_the_log(site: Site, into: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Follower().fetch(f"{site.url}?sig=secret", into)
    assert "a.tar?..." in caplog.text
    assert "secret" not in caplog.text


def test_nothing_of_another_source_is_continued(site: Site, into: Path) -> None:
    with pytest.raises(FetchStopped):
        Follower(stop_after=50_000).fetch(site.url, into)
    (into / WEIGHTS_FILE).write_bytes(b"of something else")
    site.server.requests.clear()
    Follower().fetch(f"{site.server.url}/b.tar", into)
    assert contents(into) == site.files
    assert set(site.starts()) == {0}
