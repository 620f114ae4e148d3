"""One folder is judged alike whatever way it comes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapters.checkpoint import inspect_adapter
from adapters.errors import AdapterError
from adapters.layout import CONFIG_FILE, SERVED_FILES, WEIGHTS_FILE, why_not
from adapters.sources import FetchSettings, unpack
from adapters.verify import verify
from tenantry.adding import pack
from tests.unit.adapters import test_sources_hub, test_sources_objects
from tests.unit.adapters.remotes import MAX_BYTES, Follower, contents, http_server, ranged, tar
from tests.unit.adapters.test_sources_archive import zipped
from tests.unit.adapters.test_sources_hub import NEW, Hub
from tests.unit.fleet.files import adapter_folder

s3_url, s3, site = test_sources_objects.s3_url, test_sources_objects.s3, test_sources_hub.site
Files = dict[str, bytes]
Way = Callable[[Files], None]

CHECKPOINTS = ("checkpoint-100", "checkpoint-200", "checkpoint-1000")


@pytest.fixture
def good(tmp_path: Path) -> Files:
    made = adapter_folder(tmp_path / "good", rank=8)
    shapes = {"lora_A.weight": (8, 16), "lora_B.weight": (16, 8)}
    tensors = {f"model.q_proj.{half}": np.ones(shape, "float32") for half, shape in shapes.items()}
    save_file(tensors, made / WEIGHTS_FILE)
    return {name: (made / name).read_bytes() for name in SERVED_FILES}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Files], Path]:
    def written(files: Files) -> Path:
        root = tmp_path / "folder"
        root.mkdir()
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        return root

    return written


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[bytes], Path]:
    def written(raw: bytes) -> Path:
        (tmp_path / "archive").write_bytes(raw)
        return tmp_path / "archive"

    return written


@pytest.fixture(
    params=[
        "verify",
        "fleet.yaml",
        "folder source",
        "bento source",
        "packed by the CLI",
        "tar",
        "tar.gz",
        "zip",
        "folder in a tar",
        "web archive",
        "hub",
        "bucket",
    ]
)
def way(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    folder: Callable[[Files], Path],
    archive: Callable[[bytes], Path],
) -> Iterator[Way]:
    """What takes the files one way, and raises where it refuses them."""
    into = tmp_path / "into"

    def from_web(files: Files) -> None:
        raw = tar(files)
        with http_server(lambda asked: ranged(raw, asked)) as server:
            Follower().fetch(f"{server.url}/a.tar.gz", into)

    def from_bucket(files: Files) -> None:
        test_sources_objects.upload(request.getfixturevalue("s3"), "a", files)
        Follower().fetch("s3://acme/a", into)

    def from_hub(files: Files) -> None:
        hub: Hub = request.getfixturevalue("site")
        hub.commits[NEW] = files
        Follower().fetch("hf://acme/support", into)

    def from_archive(raw: bytes) -> None:
        unpack(archive(raw), into, max_bytes=MAX_BYTES)

    def from_model_store(files: Files) -> None:
        settings = FetchSettings(model_folder=lambda _: folder(files))
        Follower().fetch("bento://a:b", into, settings=settings)

    ways: dict[str, Callable[[Files], Any]] = {
        "verify": lambda files: verify(folder(files), base=None),
        "fleet.yaml": lambda files: inspect_adapter(folder(files)),
        "folder source": lambda files: Follower().fetch(str(folder(files)), into),
        "bento source": from_model_store,
        "packed by the CLI": lambda files: pack(folder(files), tmp_path / "packed.tar"),
        "tar": lambda files: from_archive(tar(files, "w")),
        "tar.gz": lambda files: from_archive(tar(files)),
        "zip": lambda files: from_archive(zipped(files)),
        "folder in a tar": lambda files: from_archive(tar({f"out/{n}": c for n, c in files.items()})),
        "web archive": from_web,
        "hub": from_hub,
        "bucket": from_bucket,
    }
    yield ways[request.param]
    if into.exists():
        assert set(contents(into)) <= {*SERVED_FILES}


BESIDE = [
    ("training_args.bin",),
    ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pkl"),
    ("adapter_model.bin",),
    ("tokenizer.json", "tokenizer/vocab.json", "README.md"),
    ("all.zip", "old/weights.tar.gz"),
    tuple(f"{name}/{file}" for name in CHECKPOINTS for file in (*SERVED_FILES, "optimizer.pt")),
]


@pytest.mark.parametrize("beside", BESIDE, ids=lambda names: names[0])
def test_what_lies_beside_a_good_adapter_is_skipped(way: Way, good: Files, beside: tuple[str, ...]) -> None:
    files = good | dict.fromkeys(beside, b"other")
    way(files)


def instead(good: Files, *names: str) -> Files:
    return {CONFIG_FILE: good[CONFIG_FILE], **dict.fromkeys(names, b"other")}


MISSING: dict[str, tuple[Callable[[Files], Files], str]] = {
    "a pickle": (lambda good: instead(good, "adapter_model.bin"), "adapter_model.bin is a pickle.*safe_ser"),
    "a pickle and its arguments": (
        lambda good: instead(good, "adapter_model.bin", "training_args.bin"),
        "adapter_model.bin is a pickle",
    ),
    "shards": (
        lambda good: instead(good, *(f"adapter_model-0000{n}-of-00002.safetensors" for n in (1, 2))),
        r"in several files \(adapter_model-00001-of-00002.safetensors\)",
    ),
    "no weights": (lambda good: instead(good, "README.md"), f"has no {WEIGHTS_FILE}; an adapter is"),
    "no config": (lambda good: {WEIGHTS_FILE: good[WEIGHTS_FILE]}, f"has no {CONFIG_FILE}; an adapter is"),
    "nothing of it": (lambda good: {"README.md": b"x"}, f"has no {CONFIG_FILE}; an adapter is"),
    "only its config above checkpoints": (
        lambda good: instead(good, *(f"{name}/{file}" for name in CHECKPOINTS[:2] for file in SERVED_FILES)),
        f"has no {WEIGHTS_FILE}; adapters lie below it, in checkpoint-100, checkpoint-200: give one of those",
    ),
}


@pytest.mark.parametrize(("made", "why"), MISSING.values(), ids=MISSING)
def test_what_is_no_adapter_is_refused_for_one_reason(
    way: Way, good: Files, made: Callable[[Files], Files], why: str
) -> None:
    with pytest.raises(AdapterError, match=why):
        way(made(good))


def test_checkpoints_alone_are_named(way: Way, good: Files) -> None:
    files = {f"{name}/{file}": content for name in CHECKPOINTS for file, content in good.items()}
    with pytest.raises(AdapterError) as raised:
        way(files)
    named = re.findall(r"checkpoint-\d+", str(raised.value))
    assert named == list(CHECKPOINTS)


def test_of_very_many_a_few_are_named() -> None:
    reason = why_not(f"{number}/{WEIGHTS_FILE}" for number in range(100))
    assert reason is not None
    assert "in 0, 1, 2, 3, 4 and 95 more: give one" in reason
