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
ON_DISK = "it is on disk until its turn comes"
log = logging.getLogger("tenantry.engine")


class Restarts:
    """The engines of one worker process, one after the other."""

    def __init__(
        self, replica: str, clock: Callable[[], float] = time.monotonic, *, on_demand: bool = False
    ) -> None:
        """With `on_demand` an engine begins on disk; one that did not start is tried when told to."""
        self._replica = replica
        self._clock = clock
        self._on_demand = on_demand
        self._worker = secrets.token_hex(8)
        self._state = EngineState.STOPPED if on_demand else EngineState.STARTING
        self._reason = ON_DISK if on_demand else ""
        self._failed_starts = 0
        self._deaths = 0
        self._starts = 0
        self._last_death = ""
        self._machine_to_blame = False  # for the last death
        self._logged: tuple[str, float] | None = None  # the last failure that was logged, and when

    @property
    def delay_s(self) -> float:
        """How long to wait before the next start."""
        return min(2.0**self._failed_starts, MAX_RESTART_DELAY_S)

    @property
    def failed_starts(self) -> int:
        """How many starts have failed since the last one that did not."""
        return self._failed_starts

    def is_alive(self) -> bool:
        """Whether starting the engine still makes sense."""
        return self._failed_starts < FAILURES_BEFORE_DEAD

    def passed(self, took_s: float) -> None:
        """Record that an engine has started and passed its self-test, and the time that it took."""
        self._failed_starts = 0
        self._starts += 1
        self._state, self._reason, self._logged = EngineState.READY, "", None
        log.info("%s: ready (%.0f s)", self._replica, took_s)

    def died(self, words: str) -> None:
        """Record the death of an engine that had passed."""
        self._deaths += 1
        self._last_death = words
        self._machine_to_blame = blames_machine(words)
        self._state, self._reason = EngineState.STARTING, f"the engine died: {words}"
        log.error("%s: the engine died: %s; it is restarted in place", self._replica, words)

    def told_to_end(self, *, stay: bool) -> None:
        """Record that an engine ends as it was told: to `stay` stopped, or for another to start."""
        state = EngineState.STOPPED if stay else EngineState.STARTING
        if state is self._state or (self._on_demand and self._state is EngineState.FAILED):
            return  # why it failed stays to be read until it is tried again
        self._state = state
        self._reason = "it was told to stop" if stay else "it restarts, as it was told"
        log.info("%s: %s", self._replica, self._reason)
        if stay and self._on_demand:
            self._reason = ON_DISK

    def fell_asleep(self, level: int) -> None:
        """Record that an engine sleeps, and frees its device."""
        self._state, self._reason = EngineState.STOPPED, f"it sleeps (level {level}) until its turn comes"
        log.info("%s: it sleeps (level %d)", self._replica, level)

    def told_to_start(self) -> None:
        """Record that the next engine is to start now."""
        self._state, self._reason = EngineState.STARTING, ""

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
        again = "when it is asked for" if self._on_demand else f"in {self.delay_s:.0f} s"
        log.log(level, "%s: the engine did not start: %s; again %s", self._replica, words, again)

    def health(self, *, answers: bool, draining: bool) -> EngineHealth:
        """Return the engine's state now; `answers`: whether it is ready, so not silent."""
        state, reason = self._state, self._reason
        if draining:
            state, reason = EngineState.DRAINING, "it was told to end"
        elif not answers and state is EngineState.READY:
            state, reason = EngineState.SILENT, "the engine does not answer"
        return EngineHealth(
            state,
            reason,
            self._worker,
            self._deaths,
            self._last_death,
            self._machine_to_blame,
            self._starts,
        )
