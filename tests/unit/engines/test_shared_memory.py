"""Engines are not started where their processes cannot talk to each other."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines import shared_memory
from engines.shared_memory import NoSharedMemory, require

MIB = 2**20


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What is free, in MiB."""
    now = SimpleNamespace(mib=64)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=now.mib * MIB))
    return now


@pytest.mark.parametrize(("workers", "on_cpu"), [(1, True), (2, True), (2, False)])
def test_a_containers_default_is_refused_with_the_remedy(
    workers: int, on_cpu: bool, free: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(NoSharedMemory, match=r"needs 160 MiB of .*, which has 64 MiB free: .*--shm-size"):
        require(workers=workers, on_cpu=on_cpu, place=tmp_path, env={})


def test_what_is_enough_is_enough(free: SimpleNamespace, tmp_path: Path) -> None:
    free.mib = 160
    require(workers=1, on_cpu=True, place=tmp_path, env={})
    free.mib = 159
    with pytest.raises(NoSharedMemory):
        require(workers=1, on_cpu=True, place=tmp_path, env={})


def test_a_single_worker_of_a_gpu_needs_none(free: SimpleNamespace, tmp_path: Path) -> None:
    require(workers=1, on_cpu=False, place=tmp_path, env={})


def test_chunks_have_the_size_that_vllm_is_told(free: SimpleNamespace, tmp_path: Path) -> None:
    require(workers=1, on_cpu=True, place=tmp_path, env={"VLLM_MQ_MAX_CHUNK_BYTES_MB": "4"})
    with pytest.raises(NoSharedMemory, match="needs 160 MiB"):
        require(workers=1, on_cpu=True, place=tmp_path, env={"VLLM_MQ_MAX_CHUNK_BYTES_MB": "much"})


def test_a_machine_without_that_place_is_vllms_matter(tmp_path: Path) -> None:
    require(workers=1, on_cpu=True, place=tmp_path / "none", env={})


def test_the_size_is_what_vllm_asks_for() -> None:
    found = find_spec("vllm")  # its text: importing it takes many seconds
    assert found is not None and found.submodule_search_locations
    root = Path(found.submodule_search_locations[0])
    ring = (root / "distributed/device_communicators/shm_broadcast.py").read_text()
    assert f"max_chunks: int = {shared_memory.CHUNKS}," in ring
    assert f"VLLM_MQ_MAX_CHUNK_BYTES_MB: int = {shared_memory.CHUNK_MIB}\n" in (root / "envs.py").read_text()
