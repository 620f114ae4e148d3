"""Tells engines that end together with their process from engines that crash."""

from __future__ import annotations

import logging
import signal
import types
from collections.abc import Sequence
from typing import Protocol

VLLM_CLIENT_LOG = logging.getLogger("vllm.v1.engine.async_llm")  # calls every end of an engine a failure


class Supervised(Protocol):
    """The engine of one replica of this process."""

    draining: bool

    @property
    def is_loading(self) -> bool:
        """Whether an engine is on its way."""


def drain_on_signals(supervised: Sequence[Supervised]) -> None:
    """Tell an ordered end from a crash: BentoML signals EngineCore at the same moment as this process.

    Call it in the main thread.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        _drain_on(number, supervised)


def _drain_on(number: signal.Signals, supervised: Sequence[Supervised]) -> None:
    previous = signal.getsignal(number)

    def on_signal(signum: int, frame: types.FrameType | None) -> None:
        for one in supervised:
            one.draining = True
        # EngineCore ends on the same signal, or is killed as it loads. vLLM would log that as a failure, with
        # a traceback.
        VLLM_CLIENT_LOG.disabled = True
        if any(one.is_loading for one in supervised):
            logging.getLogger("vllm").setLevel(logging.CRITICAL)
        if callable(previous):
            previous(signum, frame)

    signal.signal(number, on_signal)
