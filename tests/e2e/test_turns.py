"""Whole models take turns at one host, real engines: official clients ask them, none is refused.

`tests/stress/test_turning.py` does the same with four models, for longer.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.e2e.mesh_traffic import WAITS_S, MeshTraffic, judged, meshed
from tests.e2e.serving import Service, answers, wait_until
from tests.processes import left_of

pytestmark = pytest.mark.engine
QUESTION = "Where is my order?"
MODELS = {"support": "acme-support", "sales": "acme-sales"}  # of one shape
ENDS_WITHIN_S = 10.0


def ask(service: Service, model: str) -> str:
    client = service.client("acme").with_options(timeout=WAITS_S, max_retries=0)
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=64
    )
    return str(answer.choices[0].message.content)


def test_every_answer_is_its_models_and_nobody_is_refused(tmp_path: Path) -> None:
    with meshed(tmp_path, MODELS) as (service, models):
        for model in ("support", "sales", "support"):  # alternately: each waits for its turn
            assert ask(service, model) == answers()[models[model]][QUESTION]
        switches = service.metric("tenantry_model_switches_total", outcome="awake")
        assert switches >= 3
        traffic = MeshTraffic(service, models, talk=3)
        traffic.run(clients=12, for_s=15.0)
        judged(service, traffic, beside=3)
        assert service.metric("tenantry_model_switches_total", outcome="awake") > switches
        assert service.metric("tenantry_model_switches_total", outcome="failed") == 0
        assert service.metric("tenantry_engine_switch_seconds_total", tenant="acme") > 0


def test_a_service_that_is_stopped_while_a_model_loads_is_gone_within_ten_seconds(tmp_path: Path) -> None:
    with meshed(tmp_path, MODELS) as (service, _):
        wait_until(lambda: service.engine_cores(), "the core of a model that comes", within_s=180.0)
        family, began_s = service.processes(), time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(ENDS_WITHIN_S) == 0
        assert not left_of(family, within_s=began_s + ENDS_WITHIN_S - time.monotonic())
        assert "Traceback" not in service.log.read_text()
