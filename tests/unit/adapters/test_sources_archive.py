"""What an archive may hold, and every kind that is refused; each is made here."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.errors import AdapterError, ChecksumMismatch, StoreFull
from adapters.layout import CONFIG_FILE, SERVED_FILES, WEIGHTS_FILE
from adapters.sources import archive as archives
from adapters.sources import unpack
from tests.unit.adapters.remotes import MAX_BYTES, contents, full_disk, tar

FILES = {CONFIG_FILE: b'{"r": 8}', WEIGHTS_FILE: b"w" * 3000}


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_with(member: tarfile.TarInfo) -> bytes:
    """A tar of an adapter, and one more member without content, which may stand for one of its files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in FILES.items():
            if name != member.name:
                file = tarfile.TarInfo(name)
                file.size = len(content)
                archive.addfile(file, io.BytesIO(content))
        archive.addfile(member)
    return buffer.getvalue()


def tar_member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zip_with(name: str, content: bytes, *, mode: int = 0, flags: int = 0) -> bytes:
    """A zip of an adapter, and one more member, which may stand for one of its files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for served, data in FILES.items():
            if served != name:
                archive.writestr(served, data)
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        archive.writestr(member, content)
        member.flag_bits |= flags
    return buffer.getvalue()


def zip_of_false_offset() -> bytes:
    """A zip whose directory says that it lies later, so that its members lie before the file."""
    archive = bytearray(zipped(FILES))
    at = archive.rindex(b"PK\5\6") + 16
    archive[at : at + 4] = struct.pack("<I", struct.unpack("<I", archive[at : at + 4])[0] + 1000)
    return bytes(archive)


def unpacked(folder: Path, raw: bytes, *, max_bytes: int = MAX_BYTES, sha256: str | None = None) -> Path:
    """Unpack beside everything that an archive could reach, and see that nothing of it changed."""
    archive, into = folder / "upload", folder / "outer" / "into"
    archive.write_bytes(raw)
    into.parent.mkdir(exist_ok=True)
    try:
        unpack(archive, into, max_bytes=max_bytes, sha256=sha256)
    finally:
        assert {path.name for path in folder.iterdir()} == {"upload", "outer"}
        assert {path.name for path in into.parent.iterdir()} <= {"into"}
        if into.exists():
            assert set(contents(into)) in (set(), set(SERVED_FILES))
    return into


def refusal(folder: Path, raw: bytes, *, max_bytes: int = MAX_BYTES) -> str:
    with pytest.raises(AdapterError) as raised:
        unpacked(folder, raw, max_bytes=max_bytes)
    into = folder / "outer" / "into"
    assert not into.exists() or contents(into) == {}
    assert str(folder) not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    "pack",
    [
        tar,
        lambda files: tar(files, "w"),
        lambda files: gzip.compress(tar(files, "w")[:512]) + gzip.compress(tar(files, "w")[512:]),
        zipped,
        lambda files: zipped(files, zipfile.ZIP_STORED),
    ],
)
@pytest.mark.parametrize("folder", ["", "./", "adapter/", "runs/7/checkpoint-500/"])
def test_the_two_files_come_out_of_the_root_or_the_one_folder(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes], folder: str
) -> None:
    files = {f"{folder}{name}": content for name, content in FILES.items()}
    files[f"{folder}README.md"] = b"not served"
    files[f"{folder}tokenizer/vocab.json"] = b"{}"
    assert contents(unpacked(tmp_path, pack(files))) == FILES


def test_a_long_name_and_other_extended_headers_are_read(tmp_path: Path) -> None:
    folder = "ä" * 60 + "/" + "b" * 90
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as archive:
            for name, content in FILES.items():
                member = tarfile.TarInfo(f"{folder}/{name}")
                member.size, member.mtime = len(content), 1700000000.123456
                archive.addfile(member, io.BytesIO(content))
        assert contents(unpacked(tmp_path, buffer.getvalue())) == FILES


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (tar_with(tar_member(WEIGHTS_FILE, tarfile.SYMTYPE, "/etc/passwd")), "the link"),
        (tar_with(tar_member(CONFIG_FILE, tarfile.LNKTYPE, "../../x")), "the link"),
        (tar_with(tar_member(WEIGHTS_FILE, tarfile.CHRTYPE)), "a device or pipe"),
        (tar_with(tar_member(WEIGHTS_FILE, tarfile.BLKTYPE)), "a device or pipe"),
        (tar_with(tar_member(CONFIG_FILE, tarfile.FIFOTYPE)), "a device or pipe"),
        (tar_with(tar_member(WEIGHTS_FILE, tarfile.GNUTYPE_SPARSE)), "the sparse file"),
        (zip_with(WEIGHTS_FILE, b"/etc/passwd", mode=stat.S_IFLNK | 0o777), "the link"),
        (zip_with(CONFIG_FILE, b"", mode=stat.S_IFIFO | 0o644), "a device or pipe"),
        (zip_with(WEIGHTS_FILE, b"", flags=0x1), "is encrypted"),
        (zipped(FILES, zipfile.ZIP_LZMA), "an unusual way"),
        (b"", "neither tar nor tar.gz nor zip"),
        (b"BZh91AY&SY" + bytes(600), "neither tar nor tar.gz nor zip"),
        (tar(FILES, "w")[:3000], "damaged or cut short"),
        (tar(FILES)[:-20], "damaged or cut short"),
        (gzip.compress(b"no tar" * 500, mtime=0), "damaged or cut short"),
        (zipped(FILES)[:-30], "damaged or cut short"),
        (b"PK" + bytes(600), "damaged or cut short"),
        (zip_of_false_offset(), "damaged or cut short"),
        (zipped({"QQ": b""}).replace(b"QQ", b"\0\0"), "damaged or cut short"),
    ],
)
def test_links_devices_encryption_and_damage_are_refused(tmp_path: Path, raw: bytes, why: str) -> None:
    assert why in refusal(tmp_path, raw)


@pytest.mark.parametrize(
    "raw",
    [
        *(
            tar_with(tar_member("x", kind, "/etc/passwd"))
            for kind in (
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.CHRTYPE,
                tarfile.BLKTYPE,
                tarfile.FIFOTYPE,
                tarfile.GNUTYPE_SPARSE,
            )
        ),
        zip_with("x", b"/etc/passwd", mode=stat.S_IFLNK | 0o777),
        zip_with("x", b"", mode=stat.S_IFIFO | 0o644),
        zip_with("x", b"", flags=0x1),
        *(
            pack({**FILES, name: b"x"})
            for pack in (tar, zipped)
            for name in ("training_args.bin", "optimizer/state.PT", "data.tar.gz", "inner.ZIP")
        ),
    ],
)
def test_whatever_else_is_in_an_archive_stays_there(tmp_path: Path, raw: bytes) -> None:
    assert contents(unpacked(tmp_path, raw)) == FILES


@pytest.mark.parametrize("pack", [tar, zipped])
def test_the_topmost_adapter_is_taken_whatever_comes_first(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    below = {f"out/checkpoint-{n}/{name}": b"other" for n in (100, 200) for name in SERVED_FILES}
    own = {f"out/{name}": content for name, content in FILES.items()}
    halves = list(own.items())
    for files in (below | own, own | below, dict(halves[:1]) | below | dict(halves[1:])):
        assert contents(unpacked(tmp_path, pack(files))) == FILES


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["/etc/x"], "absolute path"),
        (["C:\\x"], "absolute path"),
        (["\\\\host\\x"], "absolute path"),
        (["../x"], "which leaves it"),
        (["a/../../x"], "which leaves it"),
        (["a\\..\\x"], "which leaves it"),
        (["../" + CONFIG_FILE], "which leaves it"),
        (["x"] * 12, "more than 10 entries"),
    ],
)
def test_names_that_are_dangerous_or_unclear_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pack: Callable[[dict[str, bytes]], bytes],
    names: list[str],
    why: str,
) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 10)
    more = {name * (number + 1): b"x" for number, name in enumerate(names)}
    assert why in refusal(tmp_path, pack({**FILES, **more}))
    assert why in refusal(tmp_path, pack({**more, **FILES}))


@pytest.mark.parametrize("pack", [tar, zipped])
def test_an_archive_without_the_files_or_with_one_alone_is_refused(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    assert f"has no {CONFIG_FILE}" in refusal(tmp_path, pack({"README.md": b""}))
    assert f"has no {CONFIG_FILE}" in refusal(tmp_path, pack({}))
    assert f"has no {WEIGHTS_FILE}" in refusal(tmp_path, pack({CONFIG_FILE: b"{}"}))
    assert "adapters lie below it, in b: give" in refusal(
        tmp_path, pack({CONFIG_FILE: b"{}", f"b/{WEIGHTS_FILE}": b"w"})
    )


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in (CONFIG_FILE, WEIGHTS_FILE, f"./{CONFIG_FILE}"):
            archive.addfile(tarfile.TarInfo(name))
    assert "twice" in refusal(tmp_path, buffer.getvalue())


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("name", [WEIGHTS_FILE, "README.md"])
def test_what_expands_past_the_limit_is_refused(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes], name: str
) -> None:
    raw = pack({**FILES, name: bytes(40 * 2**20)})
    assert len(raw) < 2**20
    assert "unpacks to more than" in refusal(tmp_path, raw, max_bytes=2**20)


def test_a_zip_that_lies_about_a_size_is_refused_by_what_comes_out(tmp_path: Path) -> None:
    raw = bytearray(zipped({CONFIG_FILE: b"{}", WEIGHTS_FILE: bytes(2**22)}))
    real, told = struct.pack("<I", 2**22), struct.pack("<I", 1000)
    assert raw.count(real) == 2
    assert refusal(tmp_path, bytes(raw.replace(real, told)), max_bytes=2**20)


def test_a_tar_that_unpacks_to_zeros_for_ever_is_left_early(tmp_path: Path) -> None:
    raw = gzip.compress(tar({**FILES, "x": b""}, "w")[:-1024] + bytes(2**26))
    assert contents(unpacked(tmp_path, raw, max_bytes=2**20)) == FILES  # zeros end a tar
    bomb = tarfile.TarInfo("x")
    bomb.size = 2**33
    assert "unpacks to more than" in refusal(tmp_path, gzip.compress(bomb.tobuf() + bytes(2**24)))


def test_an_archive_larger_than_what_it_may_unpack_to_is_refused(tmp_path: Path) -> None:
    assert "larger than 1 KiB" in refusal(tmp_path, tar(FILES, "w"), max_bytes=1024)


@pytest.mark.parametrize("size", [2**15, 2**31])
def test_an_oversized_header_is_refused_before_it_is_parsed(tmp_path: Path, size: int) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, size
    raw = gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(2**16))
    assert "oversized header" in refusal(tmp_path, raw)


def test_a_header_of_digits_that_would_stall_the_parser_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**13
    raw = gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + b"1" * 2**13 + bytes(2**12))
    assert "oversized header" in refusal(tmp_path, raw)


def test_many_large_headers_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XGLTYPE, 2**14
    record = b"16384 comment=" + b"a" * (2**14 - 15) + b"\n"
    raw = gzip.compress((header.tobuf(tarfile.USTAR_FORMAT) + record) * 100)
    assert "headers are too many" in refusal(tmp_path, raw)


def test_headers_of_headers_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 512
    raw = gzip.compress((header.tobuf(tarfile.GNU_FORMAT) + b"a" * 511 + b"\0") * 5000)
    assert "damaged" in refusal(tmp_path, raw)


def test_an_endless_list_of_holes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 10)
    header = bytearray(tar_member("x", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[482] = 1  # more holes follow
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    more = bytearray(512)
    more[504] = 1
    assert "headers are too many" in refusal(tmp_path, gzip.compress(bytes(header) + bytes(more) * 1000))


def test_a_size_below_zero_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo(WEIGHTS_FILE)
    raw = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024, as GNU tar writes numbers
    for kind in (b"0", tarfile.XHDTYPE, b"L"):
        raw[156:157] = kind
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw[:512])
        # Some releases of Python 3.11 find it themselves.
        why = ("damaged",) if kind == b"0" else ("oversized header", "damaged")
        assert any(word in refusal(tmp_path, bytes(raw) + bytes(2048)) for word in why)


def test_a_zip_with_a_directory_of_very_many_entries_is_refused_unread(tmp_path: Path) -> None:
    raw = bytearray(zipped(FILES))
    end = raw.rindex(b"PK\5\6")
    size = 5 * 2**20
    directory = bytes(size)
    raw[end:end] = directory
    end += size
    struct.pack_into("<I", raw, end + 12, size)
    assert "entries" in refusal(tmp_path, bytes(raw))


def test_a_wrong_checksum_is_refused_and_a_right_one_taken(tmp_path: Path) -> None:
    raw = tar(FILES)
    with pytest.raises(ChecksumMismatch):
        unpacked(tmp_path, raw, sha256="0" * 64)
    right = hashlib.sha256(raw).hexdigest().upper()
    assert contents(unpacked(tmp_path, raw, sha256=right)) == FILES


def test_what_lay_in_the_folder_before_is_gone(tmp_path: Path) -> None:
    into = tmp_path / "outer" / "into"
    (into / "old").mkdir(parents=True)
    (into / "adapter_model.bin").write_bytes(b"pickle")
    assert contents(unpacked(tmp_path, tar(FILES))) == FILES


@pytest.mark.parametrize("raw", [tar(FILES), zipped(FILES)])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes
) -> None:
    monkeypatch.setattr(archives, "part_of", full_disk)
    with pytest.raises(StoreFull):
        unpacked(tmp_path, raw)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mangled_archive_is_unpacked_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(data.draw(st.sampled_from([tar(FILES), tar(FILES, "w"), zipped(FILES)])))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(len(raw) // 2, len(raw)))]
    folder = tmp_path_factory.mktemp("mangled")
    try:
        unpacked(folder, bytes(raw))
    except AdapterError:
        assert os.listdir(folder / "outer" / "into") == []
