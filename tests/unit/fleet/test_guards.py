"""Guards in a fleet file: either an endpoint or a plugin, of a tenant that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet import read_fleet
from fleet.content import Guard, OnFailure
from tests.unit.fleet.files import problems

FLEET = """
base_models: {base: {source: org/base}}
tenants: {t: {api_keys: [{sha256: KEY_A}], models: {chat: base}}}
pools: {p: {strategy: replica-per-model, base_models: [base], tenants: [t]}}
gateway:
  operator_keys: [{sha256: KEY_B}]
  guards: {t: GUARD}
""".replace("KEY_A", "a" * 64).replace("KEY_B", "b" * 64)


def test_a_guard_arrives(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET.replace("GUARD", "{plugin: words, on_failure: allow, answers: false}"))
    guards = read_fleet(path, env={}).fleet.gateway.guards
    assert guards == {"t": Guard(OnFailure.ALLOW, plugin="words", answers=False)}


@pytest.mark.parametrize(
    ("guard", "at"),
    [
        ("{on_failure: allow}", "gateway.guards.t"),
        ("{on_failure: allow, plugin: a, url: 'https://b.example'}", "gateway.guards.t"),
        ("{plugin: a}", "gateway.guards.t"),
        ("{plugin: a, on_failure: maybe}", "gateway.guards.t.on_failure"),
        ("{plugin: a, on_failure: allow, prompts: false, answers: false}", "gateway.guards.t"),
        ("{plugin: a, on_failure: allow, model: m}", "gateway.guards.t"),
        ("{url: 'https://user:word@b.example', on_failure: allow}", "gateway.guards.t.url"),
        ("{url: 'file:///etc/passwd', on_failure: allow}", "gateway.guards.t.url"),
        ("{plugin: a, on_failure: allow, hold_back_chars: 0}", "gateway.guards.t.hold_back_chars"),
        ("{plugin: a, on_failure: allow}, u: {plugin: a, on_failure: allow}", "gateway.guards.u"),
    ],
)
def test_a_wrong_one_is_named(tmp_path: Path, guard: str, at: str) -> None:
    assert at in {problem.path for problem in problems(tmp_path, FLEET.replace("GUARD", guard), {})}
