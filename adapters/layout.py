"""Does a folder hold an adapter, judged by its files' names? The rule is the same for every source.

Two files count, both at the top level. Other files there or below are neither read nor a reason to refuse:
trainers leave optimizer states, pickled arguments and whole checkpoints beside an adapter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from adapters.tensors import short

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
SERVED_FILES = (CONFIG_FILE, WEIGHTS_FILE)  # an engine reads these and nothing else
MAX_NAMES = 10_000  # examined for a helpful message
LAYOUT = (
    "adapter_config.json and adapter_model.safetensors must lie right under the source "
    "(adapter_model.bin is a pickle and never read: save the adapter again with safe_serialization=True)"
)

_PICKLED = re.compile(r"adapter_model\.(bin|pt|pth|ckpt|pkl|pickle)")
_SHARD = re.compile(r"adapter_model-\d+-of-\d+\.safetensors|adapter_model\.safetensors\.index\.json")
MAX_NAMED = 5  # folders in one message


def why_not(names: Iterable[str]) -> str | None:
    """Return why a folder is no adapter; None if it is one. `names` are its files', as `a/b` below it."""
    found = set(names)
    missing = [name for name in SERVED_FILES if name not in found]
    if not missing:
        return None
    if WEIGHTS_FILE in missing:
        for name in sorted(found):
            if _PICKLED.fullmatch(name):
                return (
                    f"{name} is a pickle, which runs code when it is read; save the adapter again with "
                    "safe_serialization=True"
                )
            if _SHARD.fullmatch(name):
                return f"the weights lie in several files ({name}); save the adapter again as one file"
    below = sorted({name.rpartition("/")[0] for name in found if _is_weights_below(name)}, key=_natural)
    if below:
        rest = f" and {len(below) - MAX_NAMED} more" if len(below) > MAX_NAMED else ""
        listed = ", ".join(short(name)[1:-1] for name in below[:MAX_NAMED])
        return f"the folder has no {missing[0]}; adapters lie below it, in {listed}{rest}: give one of those"
    return f"the folder has no {missing[0]}; an adapter is the folder that PEFT saved"


def _is_weights_below(name: str) -> bool:
    folder, _, last = name.rpartition("/")
    return bool(folder) and last == WEIGHTS_FILE


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Order checkpoint-200 before checkpoint-1000."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]
