"""The first steps of a process that vLLM starts: its log is set up before vLLM's imports write lines.

Python's `multiprocessing` runs the parent's main module anew in every process that it spawns, and in those
that these spawn. In an engine's worker that would be BentoML's, which is of no use there; this module takes
its place.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from engines import logs
from engines.devices.vllm_guard import correct_vllm

# Secrets that an engine's processes do not need: the first opens every engine and yields all cache salts.
WITHHELD = ("TENANTRY_SECRET", "TENANTRY_ADMIN_KEY")


def become_main_of_children() -> None:
    """Have processes that this one spawns run this module first."""
    sys.modules["__main__"].__spec__ = __spec__


def withhold(names: Iterable[str] = ()) -> None:
    """Have processes that this one spawns from now on inherit no secret of the service, nor these."""
    for name in (*WITHHELD, *names):
        os.environ.pop(name, None)


if __name__ == "__mp_main__":
    logs.set_up()
    correct_vllm()
