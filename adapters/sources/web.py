"""Reads an archive over https: streamed, never wholly in memory, redirects checked.

httpx rather than fsspec's http: that one reads a whole reply into memory if a server ignores the range
header, hides the status and headers that tell whether a part can be continued, and follows any redirect.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Generator, Iterator, Mapping
from urllib.parse import urljoin, urlsplit

import httpx

from adapters.sources.address import Address, is_loopback
from adapters.sources.quiet import hide_queries
from adapters.sources.remote import Changed, Refused, RemoteFile, Unanswered

MAX_REDIRECTS = 5
TIMEOUT = httpx.Timeout(30.0, connect=10.0)  # seconds without a byte, and until connected
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({404, 410})
_LATER = frozenset({408, 425, 429})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class WebArchive:
    """One archive at an https address; of http only on this machine."""

    def __init__(self, address: Address) -> None:
        hide_queries()
        self._url = address.text
        host = urlsplit(self._url).hostname or ""
        self._is_loopback = is_loopback(host)
        self._client = httpx.Client(
            follow_redirects=False,
            timeout=TIMEOUT,
            trust_env=not self._is_loopback,
            headers={"accept-encoding": "identity"},
        )

    def describe(self, name: str) -> RemoteFile:
        """Send a GET and do not read its body: signed addresses often allow nothing else."""
        with self._get({}) as response:
            return _description(name, response.headers)

    def read(self, file: RemoteFile, start: int) -> Generator[bytes]:
        """Read from `start` on; earlier bytes that the server sends anyway are skipped."""
        headers = {"range": f"bytes={start}-", "if-range": file.tag} if start else {}
        with self._get(headers) as response:
            skip = start - self._first_byte(file, start, response)
            pieces = response.iter_raw()
            while (piece := _next(pieces)) is not None:
                if len(piece) > skip:
                    yield piece[skip:]
                skip = max(0, skip - len(piece))

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @contextlib.contextmanager
    def _get(self, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Request the archive, following redirects. Raises `RemoteFailure`."""
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = self._client.send(
                    self._client.build_request("GET", url, headers=headers), stream=True
                )
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Unanswered(f"it does not answer ({type(error).__name__})") from None
            with contextlib.closing(response):
                if response.status_code not in _REDIRECTS:
                    _check_status(response.status_code)
                    yield response
                    return
                url = self._redirected(url, response.headers.get("location", ""))
        raise Refused(f"it redirects more than {MAX_REDIRECTS} times; give the address it leads to")

    def _redirected(self, url: str, location: str) -> str:
        """Return a redirect's target. Raises `Refused` unless it is public https."""
        try:
            target = urljoin(url, location)
            parts = urlsplit(target)
            host = parts.hostname or ""
        except ValueError:
            host, target, parts = "", "", urlsplit("")
        if self._is_loopback and is_loopback(host) and parts.scheme in ("http", "https"):
            return target
        if parts.scheme != "https" or not host or "@" in parts.netloc or _is_inside(host):
            raise Refused(
                "it redirects to an address that is not public https; give the archive's own address"
            )
        return target

    def _first_byte(self, file: RemoteFile, start: int, response: httpx.Response) -> int:
        """Return the offset at which a reply begins. Raises `Changed` if its content is another one."""
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            is_other = _description(file.name, response.headers).tag not in ("", file.tag)
            if (
                is_other
                or match is None
                or int(match[1]) != start
                or match[2] not in ("*", str(file.size_bytes))
            ):
                raise Changed("it answers with another range than was asked for")
            return start
        if _description(file.name, response.headers) != file:
            raise Changed("it changed while it was fetched")
        return 0


def _description(name: str, headers: httpx.Headers) -> RemoteFile:
    length = headers.get("content-length", "")
    etag = headers.get("etag", "")
    tag = etag if etag and not etag.startswith("W/") else headers.get("last-modified", "")
    return RemoteFile(name, int(length) if length.isdecimal() else None, tag)


def _check_status(status: int) -> None:
    if status in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
        return
    if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise Changed("it changed while it was fetched")
    if status >= 500 or status in _LATER:
        raise Unanswered(f"it answers with status {status}")
    if status in _GONE:
        raise Refused(f"there is nothing there (status {status}); check the address")
    if status in (401, 403):
        raise Refused(f"it may not be read from here (status {status}); use a signed or public address")
    raise Refused(f"it answers with status {status}; check the address")


def _next(pieces: Iterator[bytes]) -> bytes | None:
    try:
        return next(pieces, None)
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise Unanswered(f"the connection broke ({type(error).__name__})") from None


def _is_inside(host: str) -> bool:
    """Whether a host is this machine by name, or a number that is not public; names are not looked up."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        return last == "localhost" or last[:1].isdigit()  # 2130706433 and 0x7f000001 are 127.0.0.1
