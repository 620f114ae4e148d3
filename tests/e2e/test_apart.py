"""Gateway and engine share no folder, as on two machines: the engine gets adapters by their digest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import demo_fleet
from tests.e2e.networks import Network, another_network, why_none
from tests.e2e.operators import Operator
from tests.e2e.serving import DEMO, answers, serving

pytestmark = pytest.mark.engine
QUESTION = "Where is my order?"


@pytest.fixture(params=["another folder", "another network"])
def network(request: pytest.FixtureRequest) -> Iterator[Network | None]:
    """Where the engine is: beside the gateway, or where it reaches nothing but the gateway's machine."""
    if request.param == "another folder":
        yield None
        return
    if reason := why_none():
        pytest.skip(f"no network of its own: {reason}")
    with another_network() as made:
        yield made


def test_an_engine_elsewhere_serves_adapters_declared_and_added_and_keeps_its_copies(
    network: Network | None, tmp_path: Path
) -> None:
    near, far = tmp_path / "gateway", tmp_path / "engine"
    near.mkdir()
    far.mkdir()
    secret = {"TENANTRY_SECRET": "the same for both"}
    arguments = ("--arg", f"fleet={demo_fleet(near, {})}")
    own = (*arguments, "--arg", "replica=shared-0")
    everywhere = "127.0.0.1" if network is None else "0.0.0.0"
    with serving("service:Gateway", far, *own, env=secret, host=everywhere, inside=network) as engine:
        elsewhere = secret | {"TENANTRY_ENGINE_URLS": f"shared-0={engine.url}"}
        pool = (*arguments, "--arg", "pool=shared")
        with serving("service:Gateway", near, *pool, env=elsewhere, host=everywhere) as gateway:

            def ask(tenant: str, model: str) -> str:
                messages: Any = [{"role": "user", "content": QUESTION}]
                client = gateway.client(tenant, max_retries=0)
                answer = client.chat.completions.create(
                    model=model, messages=messages, temperature=0, max_tokens=64
                )
                return answer.choices[0].message.content or ""

            known = answers()
            for tenant, model in (("acme", "support"), ("acme", "sales"), ("globex", "support")):
                assert ask(tenant, model) == known[f"{tenant}-{model}"][QUESTION]
            copies = [path.name for path in (far / "state/copies").glob("*/*") if path.name[0] != "."]
            assert len(copies) >= 3 and not (far / "state/adapters").exists()

            source = str(DEMO / "adapters/globex-support")
            operator = Operator(gateway.url)
            operator.run("adapters", "add", "late", source, "--tenant", "acme")
            assert ask("acme", "late") == known["globex-support"][QUESTION]
            gateway.stop()
    assert sorted(path.name for path in (far / "state/copies/.staging").iterdir()) == []
