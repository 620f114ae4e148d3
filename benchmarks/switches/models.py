"""The models that switches are measured with: two of one shape, large enough that reading them shows."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fleet import DEMO
from benchmarks.untrained import make_model

FINE_TUNES = ("acme-support", "acme-sales")  # the demo's, of one shape
ADAPTERS = ("globex-support", "initech-support")  # for the demo's base model, which theirs is, too
LARGE = ("large-1", "large-2")


def make_large(folder: Path) -> dict[str, Path]:
    """Save two untrained Llamas of 603 MiB in BF16, with the demo's tokenizer."""
    return {name: make_model(folder / name, layers=20, seed=seed) for seed, name in enumerate(LARGE)}


def fine_tunes() -> dict[str, Path]:
    """The demo's two whole models of one shape."""
    return {name: DEMO / "whole" / name for name in FINE_TUNES}


def adapters() -> dict[str, Path]:
    """Two of the demo's adapters, by id."""
    return {f"{name}@1": DEMO / "adapters" / name for name in ADAPTERS}
