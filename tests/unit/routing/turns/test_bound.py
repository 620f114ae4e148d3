"""Nobody starves: longest wait, the limit as it counted and one drain and one switch more."""

from __future__ import annotations

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from routing.turns.view import TurnSettings
from tests.unit.routing.turns.world import STEP_S, World


@st.composite
def worlds(draw: st.DrawFn) -> World:
    switch_s, answer_s = draw(st.floats(0.1, 5.0)), draw(st.floats(0.2, 6.0))
    turns = TurnSettings(
        objective_s=draw(st.sampled_from([None, 4.0, 20.0])),
        max_turn_s=draw(st.floats(2.0, 60.0)),
        starvation_limit_s=draw(st.floats(5.0, 60.0)),
        answer_s=answer_s / 2,
        drain_s=answer_s,
    )
    models, hosts, room = draw(st.integers(2, 9)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    return World(draw(st.integers(0, 2**32)), models, hosts, room, switch_s, answer_s, turns)


# Shrinking a counterexample takes minutes, and its seed is as hard to read.
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(worlds())
def test_the_longest_wait_is_the_limit_one_drain_and_one_switch(world: World) -> None:
    world.run(120.0)
    for waited_s, limit_s in world.waited:
        assert waited_s <= limit_s + world.answer_s + world.switch_s + 3 * STEP_S
