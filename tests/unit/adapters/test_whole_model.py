"""A whole model's folder: what is taken of it, what is refused, and what it is known by."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapters.errors import AdapterError, SourceUnavailable
from adapters.sources import FetchSettings, fetch
from adapters.sources.fetching import fetch as fetch_directly
from adapters.store import VersionStore
from adapters.whole_model import WHOLE_MODEL
from engines.switching.digest import Digests
from tests.integration.test_whole_models import model_folder
from tests.unit.adapters.remotes import MAX_BYTES, Reply, http_server

SERVED = ["config.json", "model.safetensors", "tokenizer.json"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


def test_the_digest_is_the_one_by_which_engines_that_take_turns_know_it(model: Path, tmp_path: Path) -> None:
    assert WHOLE_MODEL.inspect(model).digest == Digests().identify(model).digest
    other = model_folder(tmp_path / "other", seed=1)
    assert WHOLE_MODEL.inspect(other).digest != WHOLE_MODEL.inspect(model).digest


def test_only_what_engines_read_is_taken(model: Path) -> None:
    (model / "evil.py").write_text("raise SystemExit")
    (model / "optimizer.pt").write_text("pickle")
    assert list(WHOLE_MODEL.files_in(model)) == SERVED
    assert not any(
        map(WHOLE_MODEL.serves, ("evil.py", "a.bin", "../x.safetensors", ".hidden.safetensors", ""))
    )


def test_a_file_of_weights_that_the_index_does_not_name_is_left_out(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", shards=2)
    save_file({"x": np.zeros(1, dtype=np.float32)}, model / "consolidated.safetensors")
    assert "consolidated.safetensors" not in WHOLE_MODEL.files_in(model)
    assert WHOLE_MODEL.inspect(model).tensors == 4


def without_architecture(model: Path) -> None:
    (model / "config.json").write_text("{}")


def twice_in_config(model: Path) -> None:
    (model / "config.json").write_text('{"architectures": ["A"], "architectures": ["B"]}')


def tensor_that_is_missing(model: Path) -> None:
    index = {"weight_map": {"nowhere": "model.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def pipe(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    os.mkfifo(model / "tokenizer.json")


def large_tokenizer(model: Path) -> None:
    with (model / "tokenizer.json").open("wb") as file:
        file.truncate(300 * 2**20)


def header_of_100_mb(model: Path) -> None:
    with (model / "model.safetensors").open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(100_000_100)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_architecture, "names no architecture"),
        (twice_in_config, "given twice"),
        (tensor_that_is_missing, "which lacks it"),
        (pipe, "no plain file"),
        (large_tokenizer, "larger than"),
        (header_of_100_mb, "a header of more than"),
    ],
)
def test_what_is_not_as_engines_need_it_is_refused(
    model: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(model)
    with pytest.raises(AdapterError, match=words) as refused:
        WHOLE_MODEL.inspect(model)
    assert str(model) not in str(refused.value)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["model.safetensors"], "no config.json; a model is"),
        (["checkpoint-9/config.json"], "models lie below it, as in checkpoint-9"),
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin is a pickle"),
        (["config.json"], "neither model.safetensors nor"),
    ],
)
def test_a_folder_that_is_no_model_is_told_what_it_lacks(names: list[str], words: str) -> None:
    assert words in (WHOLE_MODEL.why_not(names) or "")


def test_a_long_reading_can_be_stopped(model: Path) -> None:
    with pytest.raises(SourceUnavailable):
        WHOLE_MODEL.inspect(model, lambda: True)


def test_an_archive_that_is_cut_off_is_continued_and_then_stored_under_its_digest(
    model: Path, tmp_path: Path
) -> None:
    from tests.integration.test_whole_models import packed

    body = packed(model)
    ranges: list[int] = []

    def answer(request: object) -> Reply:
        start = request.start  # type: ignore[attr-defined]
        ranges.append(start)
        headers = {"ETag": '"one"', "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        cut = 4000 if len(ranges) == 2 else None
        return Reply(body[start:], 206 if start else 200, headers if start else {"ETag": '"one"'}, cut=cut)

    store = VersionStore(tmp_path / "store", kind=WHOLE_MODEL)
    with http_server(answer) as server, store:
        into = store.stage("new")
        fetch(
            f"{server.url}/model.tar",
            into,
            max_bytes=MAX_BYTES,
            progress=lambda done, total: None,
            should_stop=lambda: False,
            settings=FetchSettings(kind=WHOLE_MODEL, wait=lambda s: None),
        )
        assert 4000 in ranges, "it went on where it was cut off"
        digest = WHOLE_MODEL.inspect(into).digest
        folder = store.publish("new", digest)
        assert sorted(os.listdir(folder)) == SERVED
        assert store.check(digest) and digest == WHOLE_MODEL.inspect(model).digest
        (folder / "model.safetensors").chmod(0o600)
        (folder / "model.safetensors").write_bytes(b"other")
        assert not store.check(digest), "changed under its digest"


def test_a_promise_that_nothing_can_keep_is_refused(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", shards=2)
    with pytest.raises(AdapterError, match=r"model\.safetensors, which is not there"):
        fetch_directly(
            str(model),
            tmp_path / "into",
            max_bytes=MAX_BYTES,
            progress=lambda done, total: None,
            should_stop=lambda: False,
            sha256="0" * 64,
            settings=FetchSettings(kind=WHOLE_MODEL),
        )
