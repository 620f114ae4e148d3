"""The digest of a model's content: what it follows, and when a file is read again."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from engines.switching import digest
from engines.switching.digest import Digests, changed_since
from engines.switching.reading import ModelUnreadable
from tests.adapter_kinds import write_base


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read whole, in order."""
    seen: list[str] = []
    real = digest.hash_file

    def noted(path: Path, stopped: threading.Event) -> str:
        seen.append(path.name)
        return real(path, stopped)

    monkeypatch.setattr(digest, "hash_file", noted)
    return seen


def test_a_model_is_read_once_and_then_what_has_changed(tmp_path: Path, reads: list[str]) -> None:
    folder, digests = write_base(tmp_path / "model"), Digests()
    first = digests.identify(folder)
    assert sorted(reads) == ["config.json", "model.safetensors"]
    assert digests.identify(folder) == first and len(reads) == 2
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert changed_since(first) == "config.json"
    assert digests.identify(folder).digest != first.digest
    assert reads[2:] == ["config.json"]


def test_a_file_of_the_same_size_and_time_in_its_place_is_noticed(tmp_path: Path) -> None:
    folder, digests = write_base(tmp_path / "model"), Digests()
    first = digests.identify(folder)
    weights, other = folder / "model.safetensors", tmp_path / "other"
    other.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    status = weights.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(weights)
    assert changed_since(first) == "model.safetensors"
    assert digests.identify(folder).digest != first.digest


def test_the_digest_is_of_contents_and_names_not_of_the_place(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "model")
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("no engine reads this")
    digests = Digests()
    assert digests.identify(folder).digest == digests.identify(tmp_path / "copy").digest
    (tmp_path / "copy" / "tokenizer.json").write_text("{}")
    assert digests.identify(folder).digest != digests.identify(tmp_path / "copy").digest


def test_a_file_that_is_written_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = write_base(tmp_path / "model"), digest.hash_file

    def written_meanwhile(path: Path, stopped: threading.Event) -> str:
        with (folder / "config.json").open("a") as other:
            other.write(" ")
        return real(path, stopped)

    monkeypatch.setattr(digest, "hash_file", written_meanwhile)
    with pytest.raises(ModelUnreadable, match="is being written"):
        Digests().identify(folder)


def test_a_file_that_is_gone_counts_as_changed(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "model")
    identity = Digests().identify(folder)
    (folder / "model.safetensors").unlink()
    assert changed_since(identity) == "model.safetensors"
    with pytest.raises(ModelUnreadable):
        Digests().identify(folder)


def test_what_is_read_is_broken_off_when_the_process_ends(tmp_path: Path) -> None:
    folder, digests = write_base(tmp_path / "model"), Digests()
    digests.stop()
    with pytest.raises(ModelUnreadable, match="ends"):
        digests.identify(folder)
