"""The gateway's own rule of turns, asked as the gateway asks it."""

from __future__ import annotations

import dataclasses
import math

from benchmarks.simulator.models.baselines import Queueing
from benchmarks.simulator.models.devices import MOST_SEQUENCES, Call, Copy, Device, Simulation, State
from routing.turns.forecast import until_awake_s
from routing.turns.rule import Plan, decide
from routing.turns.view import AwakeModel, Demand, Host, TurnSettings, Waiting
from routing.turns.worth import drain_s, fair_worth

LOOKED_AT = 64  # waiting calls of a model, as in the gateway
FIRST_S = 0.3  # from awake to the first token


class Turns(Queueing):
    """Ours: turns end, revocably, for who is worth more; with an objective, who would be late is refused."""

    def __init__(self, settings: TurnSettings, *, sheds: bool = False) -> None:
        self._settings = settings
        self._sheds = sheds
        self._last_turn_s: dict[int, float] = {}
        self._longest_drain_s = 5.0
        self._shut_s: dict[Copy, float] = {}

    def arrived(self, sim: Simulation, call: Call) -> None:
        """Let it wait, unless it would be late."""
        if self._sheds and self._wait_s(sim, call.model) > (self._settings.objective_s or math.inf):
            sim.refuse(call)
        else:
            super().arrived(sim, call)

    def changed(self, sim: Simulation) -> None:
        """Do what the rule says."""
        plan = decide(sim.now_s, self._hosts(sim), self._demands(sim), self._now(sim))
        for switch in plan.switches:
            device = sim.devices[int(switch.host)]
            goes = None if switch.instead_of is None else device.copies[int(switch.instead_of)]
            if goes is not None:
                self._close(sim, goes)
            sim.bring(int(switch.model), device, goes)
        self._shut(sim, plan)
        if plan.held:
            sim.tick()

    def _close(self, sim: Simulation, copy: Copy) -> None:
        began_s = self._shut_s.pop(copy, None)
        if began_s is None:
            self._last_turn_s[copy.model] = sim.now_s
        else:
            self._longest_drain_s = max(0.98 * self._longest_drain_s, sim.now_s - began_s)

    def _shut(self, sim: Simulation, plan: Plan) -> None:
        ends = {(end.host, end.model) for end in plan.ends}
        for device in sim.devices:
            for copy in device.copies.values():
                was, copy.shut = copy.shut, (str(device.number), str(copy.model)) in ends
                if copy.shut and not was:
                    self._shut_s[copy] = self._last_turn_s[copy.model] = sim.now_s
                elif was and not copy.shut:
                    self._shut_s.pop(copy, None)
                    sim.dispatch(copy.model)

    # -- what it sees --------------------------------------------------------------------------------------

    def _now(self, sim: Simulation) -> TurnSettings:
        return dataclasses.replace(self._settings, answer_s=sim.mean_answer_s, drain_s=self._longest_drain_s)

    def _hosts(self, sim: Simulation) -> list[Host]:
        return [self._host(sim, device) for device in sim.devices]

    def _host(self, sim: Simulation, device: Device) -> Host:
        coming = next((c for c in device.copies.values() if c.state is State.LOADING), None)
        awake = tuple(
            AwakeModel(
                str(copy.model),
                copy.since_s,
                copy.last_s,
                copy.running,
                copy.shut,
                copy.running >= MOST_SEQUENCES,
                drain_s(copy.running, sim.mean_answer_s),
            )
            for copy in device.copies.values()
            if copy.state is State.AWAKE
        )
        return Host(
            str(device.number),
            device.room,
            awake,
            None if coming is None else str(coming.model),
            0.0 if coming is None else coming.due_s - sim.now_s,
            {str(model): sim.switch_s(model, device) for model in range(sim.models)},
        )

    def _demands(self, sim: Simulation) -> list[Demand]:
        served = sim.served_lately()
        demands = []
        for model in range(sim.models):
            calls = sim.waiting(model)[:LOOKED_AT]
            waiting = tuple(Waiting(c.at_s, fair_worth(1.0, 1.0, served.get(c.tenant, 0.0))) for c in calls)
            last_turn_s = self._last_turn_s.get(model, -math.inf)
            demands.append(Demand(str(model), waiting, sim.rate(model), last_turn_s))
        return demands

    def _wait_s(self, sim: Simulation, model: int) -> float:
        copies = sim.copies(model, State.AWAKE)
        if any(copy.running < MOST_SEQUENCES and not copy.shut for copy in copies):
            return 0.0
        before = map(str, sim.heads())
        wait_s = until_awake_s(sim.now_s, str(model), self._hosts(sim), before, self._now(sim))
        return math.inf if wait_s is None else wait_s + FIRST_S
