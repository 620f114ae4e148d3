"""Is this text a source, what does it name, and does the operator allow it? Strict on purpose.

Every source has one spelling. A text with two readings (`..`, `%2e`, `//`, a user name in a URL) is
refused instead of cleaned up, so that the source that was allowed is the one that is fetched.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from adapters.errors import AdapterError

KNOWN = (
    "an absolute folder, hf://org/repo[@revision], s3://bucket/prefix, gs://bucket/prefix, "
    "https://host/file.tar.gz (.tar, .tgz, .zip) or bento://name:version"
)
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")

_MAX_CHARS = 2048
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PART = re.compile(r"[A-Za-z0-9!_.'()@=+,:~&$;-]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_HOST_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_QUERY = re.compile(r"[A-Za-z0-9!_.'()@=+,:~&$;%/?*-]*")
_HUB_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_HUB_KINDS = frozenset({"datasets", "spaces", "models", "buckets", "kernels", "collections"})
_BENTO_TAG = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_PORT = re.compile(r":[0-9]+$")
_NUMBERS = re.compile(r"[0-9a-fx.]+", re.IGNORECASE)
_METADATA_NAMES = frozenset(
    {"metadata.google.internal", "metadata", "instance-data", "instance-data.ec2.internal"}
)
_METADATA_ADDRESSES = frozenset({"100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"})


@dataclass(frozen=True, slots=True)
class Address:
    """A source, taken apart. `text` is its one spelling."""

    scheme: str  # "file", "hf", "s3", "gs", "http", "https" or "bento"
    parts: tuple[str, ...]  # host, bucket or organisation first; a folder's names for "file"
    revision: str | None = None  # of "hf"; the version of "bento"
    query: str = ""  # of "https"; may hold a signature

    @property
    def path(self) -> str:
        """The path for the source's client, without scheme, revision and query."""
        return "/".join(self.parts)

    @property
    def text(self) -> str:
        """The one spelling of this source; may hold a signature."""
        return f"{self.shown}?{self.query}" if self.query else self.shown

    @property
    def shown(self) -> str:
        """The source for people and logs: without the query, which may hold a signature."""
        if self.scheme == "file":
            return f"/{self.path}"
        separator = ":" if self.scheme == "bento" else "@"
        return f"{self.scheme}://{self.path}" + (f"{separator}{self.revision}" if self.revision else "")

    @property
    def is_archive(self) -> bool:
        """Whether this names one archive rather than a folder."""
        can_be = self.scheme in ("s3", "gs", "http", "https")
        return can_be and len(self.parts) > 1 and self.parts[-1].lower().endswith(ARCHIVE_SUFFIXES)


def check_source(source: str) -> str:
    """Return the one spelling of a source; raises `AdapterError` for anything else."""
    return parse(source).text


def check_prefix(prefix: str) -> str:
    """Return the one spelling of a prefix of sources; raises `AdapterError` for anything else.

    A prefix is a source cut after any name: `s3://example`, `hf://example-org`, `https://files.example.com`.
    """
    return _parse_prefix(prefix).shown


def is_allowed(source: str, prefixes: Iterable[str]) -> bool:
    """Whether a source lies under one of the prefixes, compared name by name.

    A folder must lie there by its own path and with every link resolved. A text that is no source, or no
    prefix, allows nothing.
    """
    try:
        address = parse(source)
    except AdapterError:
        return False
    return any(_lies_under(address, prefix) for prefix in prefixes)


def _lies_under(address: Address, text: str) -> bool:
    try:
        prefix = _parse_prefix(text)
    except AdapterError:
        return False
    if address.scheme != prefix.scheme or address.parts[: len(prefix.parts)] != prefix.parts:
        return False
    if prefix.revision is not None and prefix.revision != address.revision:
        return False
    if address.scheme != "file":
        return True
    folder, root = os.path.realpath(address.text), os.path.realpath(prefix.text)
    return os.path.commonpath([folder, root]) == root


def parse(source: str) -> Address:
    """Take a source apart. Raises `AdapterError`."""
    scheme, rest = _split(source)
    if scheme in ("http", "https"):
        return _archive_url(scheme, source)
    return _PARSERS[scheme](rest)


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is this machine by name or number."""
    host = host.strip("[]")
    return host == "localhost" or (_is_ip_address(host) and ipaddress.ip_address(host).is_loopback)


def forbidden_host(source: str) -> str | None:
    """Return the host (or bucket) of a source if no adapter can be meant to be there.

    Such hosts are link-local, or a cloud's metadata service, which hands out credentials.
    Names are not looked up. Raises `AdapterError`.
    """
    address = parse(source)
    if address.scheme not in ("http", "https", "s3", "gs"):
        return None
    host = _PORT.sub("", address.parts[0])
    number = _number(host)
    if number is None:
        is_web = address.scheme in ("http", "https")
        return host if is_web and host.rstrip(".") in _METADATA_NAMES else None
    is_forbidden = number.is_link_local or number.is_unspecified or str(number) in _METADATA_ADDRESSES
    return host if is_forbidden else None


def names_host(text: str, host: str) -> bool:
    """Whether a source or a prefix names this very host."""
    try:
        parts = _parse_prefix(text.partition("?")[0]).parts
    except AdapterError:
        return False
    return bool(parts) and _PORT.sub("", parts[0]) == host


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host's address, in any notation that resolvers read: `2852039166`, `0xa9.254.43518`."""
    host = host.strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host)) if _NUMBERS.fullmatch(host) else None
        except OSError:
            return None
    return getattr(address, "ipv4_mapped", None) or address


def _split(text: str) -> tuple[str, str]:
    """Return the scheme and the rest. Raises `AdapterError`."""
    if not text or len(text) > _MAX_CHARS or _UNPRINTABLE.search(text):
        raise AdapterError(f"a source is 1 to {_MAX_CHARS} printable characters: {KNOWN}")
    if text.startswith("/"):
        return "file", text
    match = _SCHEME.fullmatch(text)
    scheme = match[1].lower() if match else ""
    if match is None or (scheme not in _PARSERS and scheme not in ("http", "https")):
        raise AdapterError(f"{_quoted(text)} is not a source; give {KNOWN}")
    if scheme == "file" and (not match[2].startswith("/") or "%" in match[2]):
        raise AdapterError("a file:// source has no host and no percent-encoding; give the plain folder")
    return scheme, match[2]


def _parse_prefix(text: str) -> Address:
    scheme, rest = _split(text)
    if scheme == "file":
        return _folder(rest, allow_root=True)
    if scheme in ("http", "https"):
        return _url_prefix(scheme, text)
    rest = rest.removesuffix("/")
    if scheme == "hf":
        rest, _, revision = rest.partition("@")
        parts = _names(rest, text)
        if len(parts) > 2 or (revision and len(parts) < 2):
            raise AdapterError(f"{_quoted(text)} is not a prefix; give hf://org or hf://org/repo[@revision]")
        return Address(scheme, parts, revision or None)
    if scheme == "bento":
        name, _, version = rest.partition(":")
        return Address(scheme, _names(name, text), version or None)
    return Address(scheme, _names(rest, text))


def _folder(rest: str, *, allow_root: bool = False) -> Address:
    parts = tuple(part for part in rest.split("/") if part not in ("", "."))
    if ".." in parts:
        raise AdapterError("a folder is named without `..`; give the path it stands for")
    if not parts and not allow_root:
        raise AdapterError("the root folder is no adapter; give the adapter's own folder")
    return Address("file", parts)


def _names(rest: str, text: str) -> tuple[str, ...]:
    """Split a path into names that every reader understands alike."""
    parts = tuple(rest.split("/"))
    if not all(_PART.fullmatch(part) and part.strip(".") for part in parts):
        raise AdapterError(
            f"{_quoted(text)} holds an empty name, `.`, `..`, a percent-encoded or an unusual character; "
            "rename the file or folder, or spell it plainly"
        )
    return parts


def _bucket(scheme: str, rest: str) -> Address:
    parts = _names(rest.removesuffix("/"), f"{scheme}://{rest}")
    if not _BUCKET.fullmatch(parts[0]) or ".." in parts[0]:
        raise AdapterError(f"{_quoted(f'{scheme}://{rest}')} names no bucket; give {scheme}://bucket/prefix")
    return Address(scheme, parts)


def _hub(rest: str) -> Address:
    repo, at, revision = rest.removesuffix("/").partition("@")
    parts = tuple(repo.split("/"))
    if len(parts) != 2 or parts[0] in _HUB_KINDS or not all(_is_hub_name(part) for part in parts):
        raise AdapterError(f"{_quoted(f'hf://{rest}')} is not hf://org/repo[@revision] of a model")
    if at and not all(_PART.fullmatch(part) and part.strip(".@") for part in revision.split("/")):
        raise AdapterError(f"{_quoted(f'hf://{rest}')}: give a branch, tag or commit after `@`")
    return Address("hf", parts, revision if at else None)


def _is_hub_name(name: str) -> bool:
    return _HUB_NAME.fullmatch(name) is not None and "--" not in name and ".." not in name


def _bento(rest: str) -> Address:
    name, _, version = rest.partition(":")
    if not (_BENTO_TAG.fullmatch(name) and _BENTO_TAG.fullmatch(version)):
        raise AdapterError(f"{_quoted(f'bento://{rest}')} is not bento://name:version")
    return Address("bento", (name,), version)


def _archive_url(scheme: str, text: str) -> Address:
    """Check a URL of an archive; nothing of its query is ever repeated in a message."""
    url, netloc = _split_url(scheme, text)
    if url.fragment or not _QUERY.fullmatch(url.query):
        raise AdapterError(f"{_quoted(text)} has a fragment or unusual characters in its query; remove them")
    address = Address(scheme, (netloc, *_names(url.path.removeprefix("/"), text)), query=url.query)
    if not address.is_archive:
        raise AdapterError(
            f"{address.shown} is no archive; give one that ends in {', '.join(ARCHIVE_SUFFIXES)}"
        )
    return address


def _url_prefix(scheme: str, text: str) -> Address:
    url, netloc = _split_url(scheme, text)
    path = url.path.strip("/")
    return Address(scheme, (netloc, *(_names(path, text) if path else ())))


def _split_url(scheme: str, text: str) -> tuple[SplitResult, str]:
    """Return a URL's parts and the one spelling of its host and port. Raises `AdapterError`."""
    try:
        url = urlsplit(text)
        host, port = (url.hostname or "").lower(), url.port
    except ValueError:
        raise AdapterError(f"{_quoted(text)} is not a URL; check its host and port") from None
    if "@" in url.netloc:
        raise AdapterError(
            "a URL with a user name or password is refused; use a signed URL, or an s3:// source"
        )
    is_number = ":" in host and _is_ip_address(host)
    if not is_number and not all(_HOST_LABEL.fullmatch(label) for label in host.split(".")):
        raise AdapterError(f"{_quoted(text)} names no host; give https://host/file.tar.gz")
    host = f"[{host}]" if is_number else host
    if scheme == "http" and not is_loopback(host):
        raise AdapterError(f"{_quoted(text)} is not encrypted; give its https:// address")
    default = 443 if scheme == "https" else 80
    return url, host if port in (None, default) else f"{host}:{port}"


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _quoted(text: str) -> str:
    """Show a client's text in one short line, without query, user name and password."""
    text = text.partition("?")[0].partition("#")[0]
    scheme, separator, rest = text.partition("://")
    if scheme.lower() != "hf":
        host, slash, path = rest.partition("/")
        text = f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
    return f"`{text}`" if len(text) <= 120 else f"`{text[:117]}...`"


_PARSERS = {
    "file": _folder,
    "hf": _hub,
    "s3": lambda rest: _bucket("s3", rest),
    "gs": lambda rest: _bucket("gs", rest),
    "bento": _bento,
}
