"""What is a source, how is it spelt, and where may it lie?"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import AdapterError
from adapters.sources import (
    check_prefix,
    check_source,
    forbidden_host,
    is_allowed,
    names_host,
)
from adapters.sources.address import parse


@pytest.mark.parametrize(
    ("source", "spelling"),
    [
        ("/srv/adapters/a", "/srv/adapters/a"),
        ("/srv//adapters/./a/", "/srv/adapters/a"),
        ("file:///srv/adapters/a", "/srv/adapters/a"),
        ("/srv/mit Leerzeichen/ä%20", "/srv/mit Leerzeichen/ä%20"),
        ("hf://acme/support", "hf://acme/support"),
        ("hf://Acme/Support-7B.v2@refs/pr/1", "hf://Acme/Support-7B.v2@refs/pr/1"),
        ("s3://acme/adapters/support/", "s3://acme/adapters/support"),
        ("S3://acme/adapters/support.tar.gz", "s3://acme/adapters/support.tar.gz"),
        ("gs://acme/a", "gs://acme/a"),
        ("https://Files.Acme.com:443/a/b.tar.gz", "https://files.acme.com/a/b.tar.gz"),
        ("https://acme.com:8443/b.ZIP?X-Sig=a%2Fb", "https://acme.com:8443/b.ZIP?X-Sig=a%2Fb"),
        ("http://127.0.0.1:8000/b.tgz", "http://127.0.0.1:8000/b.tgz"),
        ("http://[::1]:8000/b.tar", "http://[::1]:8000/b.tar"),
        ("http://localhost/b.tar", "http://localhost/b.tar"),
        ("bento://support:v1", "bento://support:v1"),
    ],
)
def test_every_source_has_one_spelling(source: str, spelling: str) -> None:
    assert check_source(source) == spelling
    assert check_source(spelling) == spelling


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "printable"),
        ("/a\nb", "printable"),
        ("/" + "a" * 3000, "printable"),
        ("adapters/a", "not a source"),
        ("~/a", "not a source"),
        ("ftp://acme/a", "not a source"),
        ("file://host/a", "no host"),
        ("file:///a%2fb", "percent-encoding"),
        ("/srv/../etc", "`..`"),
        ("/", "root folder"),
        ("hf://acme", "hf://org/repo"),
        ("hf://datasets/acme/a", "hf://org/repo"),
        ("hf://datasets/acme", "hf://org/repo"),
        ("hf://acme/a/b", "hf://org/repo"),
        ("hf://acme/a--b", "hf://org/repo"),
        ("hf://acme/a@", "branch, tag or commit"),
        ("hf://acme/a@x/../y", "branch, tag or commit"),
        ("s3://acme/a/../b", "unusual"),
        ("s3://acme/a//b", "empty name"),
        ("s3://acme/%2e%2e/b", "percent-encoded"),
        ("s3://acme/a?versionId=1", "unusual"),
        ("s3://ACME/a", "no bucket"),
        ("s3://", "empty name"),
        ("gs://acme/a#1", "unusual"),
        ("gs://acme/a\\b", "unusual"),
        ("https://acme.com/a", "no archive"),
        ("https://a.zip", "empty name"),
        ("https://acme.com/a/../b.zip", "`..`"),
        ("https://acme.com/%2e%2e/b.zip", "percent-encoded"),
        ("https://acme.com/b.zip#x", "fragment"),
        ("https://acme.com:99999/b.zip", "host and port"),
        ("https://acme.com\\@evil.com/b.zip", "user name"),
        ("https://a_b.com/b.zip", "names no host"),
        ("https:///b.zip", "names no host"),
        ("http://acme.com/b.zip", "not encrypted"),
        ("http://127.0.0.1.acme.com/b.zip", "not encrypted"),
        ("http://2130706433/b.zip", "not encrypted"),
        ("bento://support", "bento://name:version"),
        ("bento://../x:1", "bento://name:version"),
    ],
)
def test_what_is_no_source_is_refused_with_what_is_wrong(source: str, why: str) -> None:
    with pytest.raises(AdapterError, match=why.replace(".", r"\.")):
        check_source(source)


@pytest.mark.parametrize(
    "source",
    [
        "https://user:secret@acme.com/b.zip",
        "https://secret@acme.com/b.zip",
        "https://acme.com/b?sig=secret",
        "https://acme.com/%41.zip?sig=secret",
        "http://acme.com/b.zip?sig=secret",
        "https://acme.com/b.zip?sig=secret#x",
        "s3://key:secret@acme/a",
        "gs://acme/a?secret",
        "bento://user:secret@x:1",
    ],
)
def test_a_refusal_repeats_no_password_and_no_signature(source: str) -> None:
    with pytest.raises(AdapterError) as raised:
        check_source(source)
    assert "secret" not in str(raised.value)


def test_a_signature_is_kept_and_never_shown() -> None:
    source = check_source("https://acme.com/b.zip?sig=secret")
    assert source.endswith("secret")
    assert parse(source).shown == "https://acme.com/b.zip"
    assert parse("/srv/what?").shown == "/srv/what?"


@pytest.mark.parametrize(
    ("source", "prefix"),
    [
        ("s3://acme/a/b", "s3://acme/"),
        ("s3://acme/a/b", "s3://acme/a"),
        ("s3://acme/a", "s3://acme/a/"),
        ("hf://acme/support@v1", "hf://acme"),
        ("hf://acme/support@v1", "hf://acme/support"),
        ("hf://acme/support@v1", "hf://acme/support@v1"),
        ("https://acme.com/x/b.zip?sig=1", "https://acme.com/x/"),
        ("https://acme.com/x/b.zip", "https://ACME.com"),
        ("bento://support:v1", "bento://support:v1"),
        ("bento://support:v1", "bento://support"),
    ],
)
def test_a_source_is_allowed_under_a_prefix(source: str, prefix: str) -> None:
    assert is_allowed(source, [prefix])
    assert is_allowed(source, ["not a prefix", prefix])


@pytest.mark.parametrize(
    ("source", "prefix"),
    [
        ("s3://acme-evil/x", "s3://acme"),
        ("s3://acme-evil/x", "s3://acme/"),
        ("s3://acme/abc", "s3://acme/a"),
        ("s3://acme/a/../b", "s3://acme/a"),
        ("s3://acme/a/%2e%2e/b", "s3://acme/a"),
        ("gs://acme/a", "s3://acme"),
        ("hf://acme-evil/a", "hf://acme"),
        ("hf://acme/support@v2", "hf://acme/support@v1"),
        ("hf://acme/support", "hf://acme/support@v1"),
        ("https://acme.com.evil.com/b.zip", "https://acme.com"),
        ("https://acme.com:8443/b.zip", "https://acme.com"),
        ("https://acme.com@evil.com/b.zip", "https://acme.com"),
        ("http://127.0.0.1/b.zip", "https://127.0.0.1"),
        ("bento://support:v2", "bento://support:v1"),
        ("bento://support-b:v1", "bento://support"),
        ("s3://acme/a", "s3://"),
        ("s3://acme/a", ""),
        ("s3://acme/a", "s3://acme/../"),
        ("nonsense", "s3://acme"),
    ],
)
def test_a_source_that_only_looks_like_it_is_not_allowed(source: str, prefix: str) -> None:
    assert not is_allowed(source, [prefix])


def test_nothing_is_allowed_without_prefixes() -> None:
    assert not is_allowed("s3://acme/a", [])


def test_a_folder_must_lie_there_with_every_link_resolved(tmp_path: Path) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "allowed-not"
    (allowed / "a").mkdir(parents=True)
    (outside / "a").mkdir(parents=True)
    (allowed / "link").symlink_to(outside)
    assert is_allowed(str(allowed / "a"), [str(allowed)])
    assert is_allowed(str(allowed / "a"), ["/"])
    assert not is_allowed(str(outside / "a"), [str(allowed)])
    assert not is_allowed(str(allowed / "link" / "a"), [str(allowed)])
    assert not is_allowed(f"{allowed}/../allowed-not/a", [str(allowed)])


@pytest.mark.parametrize("prefix", ["s3://", "hf://a/b/c", "hf://acme@v1", "https://u@acme.com", "acme", ""])
def test_a_prefix_that_allows_nothing_is_refused(prefix: str) -> None:
    with pytest.raises(AdapterError):
        check_prefix(prefix)


def test_a_prefix_has_one_spelling() -> None:
    assert check_prefix("https://ACME.com:443/x/") == "https://acme.com/x"
    assert check_prefix("hf://acme/") == "hf://acme"
    assert check_prefix("/") == "/"


@given(st.text(max_size=60), st.sampled_from(["", "s3://acme/", "https://acme.com/", "hf://acme/", "/srv/"]))
def test_whatever_is_accepted_lies_where_it_says(tail: str, head: str) -> None:
    try:
        source = check_source(head + tail)
    except AdapterError:
        return
    assert check_source(source) == source
    assert ".." not in source.partition("?")[0].partition("://")[2].split("/")
    if head.startswith(("s3", "hf", "https")):
        assert is_allowed(source, [head])


FORBIDDEN = [
    "https://169.254.169.254/latest/a.zip",
    "https://169.254.169.254:8443/a.zip",
    "https://169.254.0.7/a.zip",
    "https://2852039166/a.zip",
    "https://0xa9fea9fe/a.zip",
    "https://0251.0376.0251.0376/a.zip",
    "https://169.254.43518/a.zip",
    "https://[fe80::1]/a.zip",
    "https://[::ffff:169.254.169.254]/a.zip",
    "https://[fd00:ec2::254]/a.zip",
    "https://100.100.100.200/a.zip",
    "https://0.0.0.0/a.zip",
    "https://metadata.google.internal/a.zip",
    "https://METADATA.google.internal/a.zip",
    "s3://169.254.169.254/a",
    "gs://169.254.169.254/a",
]


@pytest.mark.parametrize("source", FORBIDDEN)
def test_places_that_hand_out_credentials_are_told_from_others_and_can_be_named(source: str) -> None:
    host = forbidden_host(source)
    assert host is not None
    scheme = source.partition("://")[0]
    assert names_host(f"{scheme}://{host}", host)
    assert names_host(source, host)
    assert not names_host(f"{scheme}://files.example.com", host)


@pytest.mark.parametrize(
    "source",
    [
        "https://files.example.com/a.zip",
        "https://10.0.0.7/a.zip",
        "https://metadata.example.com/a.zip",
        "https://face.example/a.zip",
        "http://127.0.0.1:8000/a.zip",
        "s3://metadata/a",
        "s3://1234567/a",
        "hf://metadata/a",
        "/169.254.169.254/a",
        "bento://a:b",
    ],
)
def test_other_places_are_not(source: str) -> None:
    assert forbidden_host(source) is None
