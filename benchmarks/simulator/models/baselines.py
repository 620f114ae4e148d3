"""Who gets a device next, as others decide it. Read in their public sources, and simplified to the decision.

`LRU` is ModelMesh's and Triton's way, `GuardedLRU` ModelMesh's with its guard against churn; `Ollama` its
scheduler's; `LlamaSwap` llama-swap's, with a free choice of the device, which it does not have; `Retry` is
AIBrix's ModelClaim, which answers 503 until the model is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.simulator.models.devices import Call, Copy, Device, Simulation, State

RETRY_AFTER_S = 10.0
RETRIES = 2


class Queueing:
    """Calls wait until their model is awake."""

    def arrived(self, sim: Simulation, call: Call) -> None:
        """Let it wait, then decide."""
        sim.enqueue(call)
        self.changed(sim)

    def changed(self, sim: Simulation) -> None:
        """Decide anew."""
        raise NotImplementedError


class LRU(Queueing):
    """A miss has the least recently used model close at once; what it runs ends first."""

    min_age_s = 0.0

    def changed(self, sim: Simulation) -> None:
        """Have every model come that somebody waits for."""
        for model in sim.heads():
            free = _free(sim.devices, model)
            if free is not None:
                sim.bring(model, free)
                continue
            old = (c for c in _awake(sim, model) if sim.now_s - c.since_s >= self.min_age_s)
            oldest = _least_recent(old)
            if oldest is None:
                if self.min_age_s:
                    sim.tick()
                return
            sim.bring(model, oldest.device, oldest)


class GuardedLRU(LRU):
    """No model goes that has come in the last ten seconds."""

    min_age_s = 10.0


class Ollama(Queueing):
    """One miss at a time: an idle model goes, else it waits until the least recently used is idle."""

    def __init__(self) -> None:
        self._model: int | None = None
        self._victim: Copy | None = None

    def changed(self, sim: Simulation) -> None:
        """Go on with the miss that was begun, or begin with the longest waiting one."""
        if not self._is_free(sim):
            return
        for model in sim.heads():
            if any(c.state is State.LOADING for d in sim.devices for c in d.copies.values()):
                return
            free = _free(sim.devices, model)
            if free is not None:
                sim.bring(model, free)
                return
            awake = _awake(sim, model)
            victim = _least_recent(c for c in awake if not c.running) or _least_recent(awake)
            if victim is not None and not victim.running:
                sim.bring(model, victim.device, victim)
            else:
                self._model, self._victim = model, victim
            return

    def _is_free(self, sim: Simulation) -> bool:
        """Whether no miss is under way any more."""
        model, victim = self._model, self._victim
        if model is None:
            return True
        if victim is not None and not victim.running and victim.state is State.AWAKE:
            sim.bring(model, victim.device, victim)
        elif sim.waiting(model) and not sim.copies(model, State.AWAKE, State.LOADING):
            return False
        self._model = self._victim = None
        return True


class LlamaSwap(Queueing):
    """First come, first served; a busy model never goes, and takes newcomers as long as it is there."""

    def changed(self, sim: Simulation) -> None:
        """Let an idle model go for the longest waiting one, on any device that is not switching."""
        for model in sim.heads():
            devices = [d for d in sim.devices if not d.is_switching and model not in d.copies]
            free = _free(devices, model)
            idle = _least_recent(c for d in devices for c in d.copies.values() if not c.running)
            if free is not None:
                sim.bring(model, free)
            elif idle is not None:
                sim.bring(model, idle.device, idle)


class Retry:
    """A model that is not awake is woken where there is room; its clients get a 503 and come again."""

    idle_s = 30.0  # until a model may go

    def arrived(self, sim: Simulation, call: Call) -> None:
        """Run it where it can, or have it come again."""
        if sim.copies(call.model, State.AWAKE):
            sim.enqueue(call)
            return
        if not sim.copies(call.model, State.LOADING):
            self._wake(sim, call.model)
        call.tries += 1
        if call.tries <= RETRIES:
            sim.at(sim.now_s + RETRY_AFTER_S, "arrive", call)
        else:
            sim.refuse(call)

    def _wake(self, sim: Simulation, model: int) -> None:
        free = _free(sim.devices, model)
        if free is not None:
            sim.bring(model, free)
            return
        idle = _least_recent(
            c for c in _awake(sim, model) if not c.running and sim.now_s - c.last_s >= self.idle_s
        )
        if idle is not None:
            sim.bring(model, idle.device, idle)

    def changed(self, sim: Simulation) -> None:
        """Do nothing: it decides when calls come."""


def _free(devices: Sequence[Device], model: int) -> Device | None:
    """The least busy device with room, and without the model."""
    free = [device for device in devices if not device.is_full and model not in device.copies]
    return min(free, key=lambda device: device.running, default=None)


def _awake(sim: Simulation, model: int) -> list[Copy]:
    """What is awake on devices without the model, which may be about to go there."""
    devices = [device for device in sim.devices if model not in device.copies]
    return [copy for device in devices for copy in device.copies.values() if copy.state is State.AWAKE]


def _least_recent(copies: Iterable[Copy]) -> Copy | None:
    return min(copies, key=lambda copy: copy.last_s, default=None)
