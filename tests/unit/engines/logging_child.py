"""Stands in for vLLM in a process that an engine spawns: warns when imported, and spawns one itself."""

from __future__ import annotations

import logging
import multiprocessing

log = logging.getLogger("vllm.stand_in")
if multiprocessing.current_process().name != "MainProcess":
    log.warning("imported")


def speak() -> None:
    """Warn, and start a worker as EngineCore does."""
    log.warning("running")
    if multiprocessing.current_process().name == "EngineCore":
        worker = multiprocessing.get_context("spawn").Process(target=speak, name="Worker")
        worker.start()
        worker.join()
