"""What does a process that vLLM starts do first? It sets up its log, before vLLM's imports say anything.

Python's `multiprocessing` runs the parent's main module anew in every process that it spawns, and in those
that these spawn. In an engine's worker that would be BentoML's, which is of no use there; this module takes
its place.
"""

from __future__ import annotations

import sys

from adapters import logs


def become_main_of_children() -> None:
    """Have processes that this one spawns run this module first."""
    sys.modules["__main__"].__spec__ = __spec__


if __name__ == "__mp_main__":
    logs.set_up()
