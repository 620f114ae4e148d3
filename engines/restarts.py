"""The state of an engine after its starts and deaths, and the delay before the next start. Logs changes."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable

from engines.health import EngineHealth, EngineState
from engines.words import blames_machine

MAX_RESTART_DELAY_S = 60.0
FAILURES_BEFORE_DEAD = 5  # failed starts in a row after which liveness fails, and an orchestrator may act
SAME_REASON_AGAIN_S = 60.0  # the same failure is logged as an error once in this time
log = logging.getLogger("tenantry.engine")


class Restarts:
    """The engines of one worker process, one after the other."""

    def __init__(self, replica: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._replica = replica
        self._clock = clock
        self._worker = secrets.token_hex(8)
        self._state = EngineState.STARTING
        self._reason = ""
        self._failed_starts = 0
        self._deaths = 0
        self._last_death = ""
        self._machine_to_blame = False  # for the last death
        self._logged: tuple[str, float] | None = None  # the last failure that was logged, and when

    @property
    def delay_s(self) -> float:
        """How long to wait before the next start."""
        return min(2.0**self._failed_starts, MAX_RESTART_DELAY_S)

    def is_alive(self) -> bool:
        """Whether starting the engine still makes sense."""
        return self._failed_starts < FAILURES_BEFORE_DEAD

    def passed(self, took_s: float) -> None:
        """Record that an engine has started and passed its self-test, and the time that it took."""
        self._failed_starts = 0
        self._state, self._reason, self._logged = EngineState.READY, "", None
        log.info("%s: ready (%.0f s)", self._replica, took_s)

    def died(self, words: str) -> None:
        """Record the death of an engine that had passed."""
        self._deaths += 1
        self._last_death = words
        self._machine_to_blame = blames_machine(words)
        self._state, self._reason = EngineState.STARTING, f"the engine died: {words}"
        log.error("%s: the engine died: %s; it is restarted in place", self._replica, words)

    def did_not_start(self, words: str) -> None:
        """Record that an engine did not start, or did not pass its self-test."""
        self._failed_starts += 1
        self._machine_to_blame = True  # no adapter caused the death if the engine does not come back at once
        self._state, self._reason = EngineState.FAILED, words
        now_s = self._clock()
        is_news = self._logged is None or self._logged[0] != words
        if self._logged is None or is_news or now_s - self._logged[1] >= SAME_REASON_AGAIN_S:
            self._logged = words, now_s
            level = logging.ERROR
        else:
            level = logging.DEBUG
        log.log(
            level, "%s: the engine did not start: %s; again in %.0f s", self._replica, words, self.delay_s
        )

    def health(self, *, answers: bool, draining: bool) -> EngineHealth:
        """Return the engine's state now; `answers`: whether it is ready, so not silent."""
        state, reason = self._state, self._reason
        if draining:
            state, reason = EngineState.DRAINING, "it was told to end"
        elif not answers and state is EngineState.READY:
            state, reason = EngineState.SILENT, "the engine does not answer"
        return EngineHealth(
            state, reason, self._worker, self._deaths, self._last_death, self._machine_to_blame
        )
