"""Stand-ins for the training, which takes half a minute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from demo import build
from demo.answers import ADAPTERS, BASE_MODEL
from demo.recipe import Recipe


class Silent:
    """A watcher that says nothing."""

    def step(self, model: str, step: int) -> None:
        """Hear a step."""

    def learnt(self, model: str, steps: int, margin: float) -> None:
        """Hear that a model has learnt."""


def fake_training(built: Path, recipe: Recipe, *, seed: int, watcher: build.Watcher) -> None:
    """Write folders of the right names, with tiny weights that depend on the seed."""
    (built / "base").mkdir(parents=True)
    (built / "base" / "config.json").write_text(f'{{"seed": {seed}}}')
    watcher.step(BASE_MODEL, 0)
    watcher.learnt(BASE_MODEL, recipe.base.steps, 5.0)
    for name in ADAPTERS:
        folder = built / "adapters" / name
        folder.mkdir(parents=True)
        save_file({"lora_A": np.full((2, 2), seed, np.float32)}, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text("{}")
        watcher.step(name, 0)
        watcher.learnt(name, recipe.adapter.steps, 6.0)
