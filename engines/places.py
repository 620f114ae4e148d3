"""Which of a host's base models are awake: as many as it may have, changed by the gateway's orders alone.

The gateway decides who comes and who goes; the host obeys as long as that leaves it with no more awake than
its pool allows and its memory takes, and it finds the cheapest way from one to the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace

from adapters.base_model import folder_of
from engines.health import EngineHealth, EngineState, Place
from engines.known import Known
from engines.memory import Memory
from engines.model_files import ModelFiles
from engines.protocol import EngineOrder
from engines.read_ahead import ReadAhead
from engines.residency import FilesAway
from engines.strikes import Strikes
from engines.supervisor import Supervisor
from engines.ways import Cold, Leave, SwitchFailed, Way, end, name_of
from fleet.types import BaseModel

# Of an engine whose way has not ended: it is not ready before that, and what it said before is old.
COMING = frozenset({EngineState.STOPPED, EngineState.FAILED, EngineState.READY})
MEASURED_FOR_S = 1.0  # how many fit is not counted again for as long
_MUCH = 2**63
log = logging.getLogger("tenantry.engine")


class Refused(Exception):
    """An order that the host may not, or cannot, follow now; says why."""


@dataclass(slots=True)
class _Switch:
    """One base model comes, perhaps instead of another."""

    coming: str
    going: str | None
    task: asyncio.Task[None] = field(init=False)

    def __str__(self) -> str:
        return f"{self.coming} comes" + (f" instead of {self.going}" if self.going else "")


class Places:
    """The base models of one host, each with its supervisor."""

    def __init__(
        self,
        supervisors: Mapping[str, Supervisor],
        *,
        awake: int | None,
        memory: Memory,
        ways: Sequence[Way] = (),
        leave: Leave | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`supervisors` may change: a model may come, or be forgotten once it rests.

        `awake` is the most at once; None: as many as are measured to fit the memory, and one until then. The
        `ways` come before the last one there is, a cold start. `leave` has a model go; else its engine ends.
        """
        self._supervisors = supervisors
        self.files: ModelFiles | None = None  # gets those that are not on this machine
        self.took: Callable[[BaseModel], None] = lambda model: None  # told of one whose files have come
        self.own = {model: one.model.source for model, one in supervisors.items()}  # by the host's fleet file
        self._most = awake
        self._memory = memory
        self.ways: Sequence[Way] = (*ways, Cold(leave))  # in which a model may come
        self._clock = clock
        self._strikes = Strikes()
        self._read_ahead = ReadAhead()
        self._known: defaultdict[str, Known] = defaultdict(Known)  # by base model
        self._switches: dict[str, _Switch] = {}  # by the model that comes
        self._background: set[asyncio.Task[None]] = set()
        self._fits, self._fits_until_s = 1, -math.inf  # models that fit the memory together, and for how long

    async def stop(self) -> None:
        """Begin no more; what is under way is left to the supervisors, which end it."""
        tasks = [*(switch.task for switch in self._switches.values()), *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._read_ahead.stop()
        if self.files is not None:
            await self.files.stop()

    def health(self, model: str) -> EngineHealth:
        """Return how a base model's engine stands, and what it has of the host."""
        supervisor, known = self._supervisors[model], self._known[model]
        health = supervisor.health()
        place = Place(
            awake=self.most_awake(),
            memory_bytes=known.memory_bytes,
            asleep=supervisor.sleeps,
            asleep_bytes=known.asleep_bytes,
            resting=self._strikes.of(model, self._clock()),
            way=known.way,
            took_s=dict(known.took_s),
            failed_starts=supervisor.failed_starts,
            source="" if supervisor.source == self.own.get(model) else self._as_told(supervisor.source),
        )
        switch = self._switches.get(model)
        instead = [one.coming for one in self._switches.values() if one.going == model]
        if switch is not None and health.state in COMING:
            reason = f"{switch.going} goes first" if switch.going else "it is about to start"
            health = replace(health, state=EngineState.STARTING, reason=reason)
        elif instead and health.state is EngineState.READY:
            health = replace(health, state=EngineState.STOPPED, reason=f"{instead[0]} comes instead of it")
        elif known.away and health.state is EngineState.STOPPED:
            health = replace(health, reason=known.away)
        return replace(health, place=place)

    def forget(self, model: str) -> None:
        """Forget what was seen of a base model that is here no more."""
        self._known.pop(model, None)

    def is_wanted(self, model: str) -> bool:
        """Whether anything of a base model is here, or is to come."""
        return model in self._switches or self._supervisors[model].is_awake

    @property
    def is_switching(self) -> bool:
        """Whether a model comes."""
        return bool(self._switches)

    def most_awake(self) -> int:
        """Return how many base models may be awake at once now."""
        if self._most is not None:
            return self._most
        if self._clock() >= self._fits_until_s:
            self._fits, self._fits_until_s = self._count_fitting(), self._clock() + MEASURED_FOR_S
        return self._fits

    def _count_fitting(self) -> int:
        here = [self._known[model].memory_bytes for model in self._supervisors]
        measured = [taken for taken in here if taken]
        if not measured:
            return 1
        # One that was never awake counts as much as the largest.
        sizes = sorted((taken or max(measured) for taken in here), reverse=True)
        room = self._free_bytes() + sum(
            self._known[model].memory_bytes for model, one in self._supervisors.items() if one.is_ready()
        )
        count = 0
        while count < len(sizes) and sizes[count] <= room:
            room -= sizes[count]
            count += 1
        return max(1, count)

    def follow(self, model: str, order: EngineOrder, instead_of: str | None = None) -> None:
        """Do as told, soon. Raises `Refused`; `LookupError` where `instead_of` is no model of this host."""
        if instead_of is not None and instead_of not in self._supervisors:
            raise LookupError(instead_of)
        if order is EngineOrder.PREPARE:
            self._prepare(model)
        elif order is EngineOrder.STOP:
            self._stop(model)
        elif order is EngineOrder.RESTART:
            self._restart(model)
        else:
            self._start(model, instead_of)

    # -- orders --------------------------------------------------------------------------------------------

    def _prepare(self, model: str) -> None:
        """Have a model's weights in memory when its turn comes, if they are on this machine."""
        if not self._supervisors[model].is_awake:
            self._in_background(self._read(model))

    async def _read(self, model: str) -> None:
        await self._have_files(model)
        wanted = self._supervisors[model].model
        folder = folder_of(wanted.source, wanted.revision)
        if folder is not None:
            self._read_ahead.begin(model, folder)

    def _stop(self, model: str) -> None:
        switch = self._switches.get(model)
        if switch is not None:
            switch.task.cancel()
        self._supervisors[model].follow(EngineOrder.STOP)

    def _restart(self, model: str) -> None:
        """Restart an awake one; one that has failed is started. Raises `Refused`."""
        self._require_no_switch(model)
        if self._supervisors[model].is_awake:
            self._supervisors[model].follow(EngineOrder.RESTART)
        elif self._supervisors[model].health().state is EngineState.FAILED:
            self._start(model, None)
        else:
            raise Refused(f"{model} is on disk: there is nothing to restart")

    def _start(self, model: str, instead_of: str | None) -> None:
        """Begin to bring a model, unless it is here or on its way. Raises `Refused`."""
        supervisor = self._supervisors[model]
        if model in self._switches:
            return
        self._require_no_switch(model)
        if supervisor.is_awake and not supervisor.is_ending:
            return
        going = None
        if instead_of is not None and instead_of != model:
            self._require_no_switch(instead_of)
            going = instead_of if self._supervisors[instead_of].is_awake else None
        self._require_room(model, going)
        switch = self._switches[model] = _Switch(model, going)
        switch.task = asyncio.create_task(self._switch(switch))
        switch.task.add_done_callback(lambda _: self._switches.pop(model, None))

    def _require_no_switch(self, model: str) -> None:
        """Raise `Refused` while a model comes or goes."""
        for switch in self._switches.values():
            if model in (switch.coming, switch.going):
                raise Refused(f"{model} {'comes' if model == switch.coming else 'goes'} already: {switch}")

    def _require_room(self, model: str, going: str | None) -> None:
        """Raise `Refused` where one more would be too many."""
        awake = self._awake() - {model, going}
        most = self.most_awake()
        if len(awake) >= most:
            raise Refused(
                f"{', '.join(sorted(awake))} {'is' if len(awake) == 1 else 'are'} awake, and {most} may be; "
                "one must go first: stop it, or name it in instead_of"
            )
        needed = self._known[model].memory_bytes
        if awake and needed:
            room = self._free_bytes(0 if self._most is None else _MUCH) + (
                self._known[going].memory_bytes if going else 0
            )
            room += sum(self._known[one].asleep_bytes for one in self._sleepers())
            if needed > room:
                raise Refused(
                    f"{model} takes {needed / 2**30:.1f} GiB, and {room / 2**30:.1f} GiB are free beside "
                    f"{', '.join(sorted(awake))}"
                )

    def _awake(self) -> set[str]:
        """Base models that take memory or are about to; of two that change places, the one that comes."""
        awake = {model for model, supervisor in self._supervisors.items() if supervisor.is_awake}
        return (awake | self._switches.keys()) - {switch.going for switch in self._switches.values()}

    def _free_bytes(self, unknown: int = 0) -> int:
        with contextlib.suppress(OSError):
            return self._memory.free_bytes()
        return unknown

    # -- one after the other -------------------------------------------------------------------------------

    async def _switch(self, switch: _Switch) -> None:
        """Bring a model by the cheapest way that is possible; where that fails, by the next one."""
        coming = self._supervisors[switch.coming]
        going = None if switch.going is None else self._supervisors[switch.going]
        if not await self._have_files(switch.coming):
            return
        before_bytes = await asyncio.to_thread(self._used_bytes)
        if switch.going is not None:  # what it takes is free by then
            before_bytes = max(0, before_bytes - self._known[switch.going].memory_bytes)
        await self._make_room(switch.coming, switch.going)
        came = await self._go(switch, going, before_bytes)
        if not came and (sleepers := self._sleepers()):
            log.warning("%s: it did not come beside those that sleep; they end", coming.replica)
            await asyncio.gather(*(end(self._supervisors[one]) for one in sleepers))
            came = await self._go(switch, None, before_bytes)
        if not came and await self._have_new_files(switch.coming):
            await self._go(switch, None, before_bytes)
        if self.files is not None:
            self.files.keep(self._needed())

    async def _have_files(self, model: str) -> bool:
        """Have a model's files on this machine; return whether they are."""
        known, wanted = self._known[model], self._supervisors[model].model
        known.away = ""
        try:
            if self.files is not None and await self.files.bring(wanted, self._needed):
                self.took(wanted)
        except FilesAway as error:
            known.away = str(error)
            log.warning("%s: %s", self._supervisors[model].replica, error)
        return not known.away

    async def _have_new_files(self, model: str) -> bool:
        """Have a model's files anew where their copy was damaged; return whether they are here."""
        files, wanted = self.files, self._supervisors[model].model
        return files is not None and await files.drop_damaged(wanted) and await self._have_files(model)

    def _needed(self) -> set[str]:
        """The folders of models that are here, or come."""
        here = (one.source for one in self._supervisors.values() if one.is_awake or one.sleeps)
        return {*here, *(self._supervisors[model].model.source for model in self._switches)}

    def _as_told(self, source: str) -> str:
        return source if self.files is None else self.files.as_told(source)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _make_room(self, coming: str, going: str | None) -> None:
        """Have models that sleep end, as many as what comes needs more memory than there is."""
        needed = self._known[coming].memory_bytes
        for sleeper in self._sleepers():
            gone = self._known[going].memory_bytes if going is not None else 0
            if sleeper != coming and needed > await asyncio.to_thread(self._free_bytes) + gone:
                await end(self._supervisors[sleeper])

    def _sleepers(self) -> list[str]:
        """The models that sleep."""
        return [model for model, supervisor in self._supervisors.items() if supervisor.sleeps]

    async def _go(self, switch: _Switch, going: Supervisor | None, before_bytes: int) -> bool:
        """Try the ways; return whether one has brought the model."""
        coming = self._supervisors[switch.coming]
        for way in self._possible(switch.coming, going, coming):
            began_s, is_usual = self._clock(), way.is_usual()
            try:
                await way.bring(going, coming)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next way may bring it
                self._failed(way, going, coming, error)
                going = going if going is not None and going.is_awake else None
                continue
            self._strikes.worked(way.name, name_of(going), switch.coming)
            self._note(switch.coming, way.name, self._clock() - began_s, is_usual)
            for model in filter(None, (switch.coming, switch.going)):
                self._in_background(self._measure(model, before_bytes))
            return True
        return False

    def _possible(self, model: str, going: Supervisor | None, coming: Supervisor) -> list[Way]:
        """List the ways, the cheapest first."""
        known, now_s = self._known[model], self._clock()
        possible = [
            way
            for way in self.ways
            if not way.why_not(going, coming)
            and not self._strikes.rests(way.name, name_of(going), model, now_s)
        ]
        return sorted(possible, key=lambda way: known.expected_s(way.name, way.usual_s, now_s))

    def _failed(self, way: Way, going: Supervisor | None, coming: Supervisor, error: Exception) -> None:
        """Have a way rest that has failed, unless it is the last one there is."""
        coming.metrics.switching.way_failed(way.name)
        foreseen, rests = isinstance(error, SwitchFailed), ""
        if way is not self.ways[-1]:
            now_s = self._clock()
            strike = self._strikes.failed(way.name, name_of(going), coming.model.name, str(error), now_s)
            rests = f"; it rests for {strike.until_s - now_s:.0f} s"
        log.warning("%s: %s: %s%s", coming.replica, way.name, error, rests, exc_info=not foreseen)

    def _note(self, model: str, way: str, took_s: float, is_usual: bool) -> None:
        known = self._known[model]
        known.way = way
        if is_usual:
            known.took(way, took_s, self._clock())
        log.info("%s: awake in %.1f s (%s)", self._supervisors[model].replica, took_s, way)

    async def _measure(self, model: str, before_bytes: int) -> None:
        """Measure what a model takes, now that it is awake, or sleeps."""
        supervisor, known = self._supervisors[model], self._known[model]
        if not (supervisor.is_ready() or supervisor.sleeps):
            return
        with contextlib.suppress(OSError):
            taken = await asyncio.to_thread(self._memory.of, supervisor.marked, before_bytes)
            if supervisor.sleeps:
                known.asleep_bytes = taken
            else:
                known.memory_bytes = taken
            self._fits_until_s = -math.inf

    def _used_bytes(self) -> int:
        with contextlib.suppress(OSError):
            return self._memory.used_bytes()
        return 0
