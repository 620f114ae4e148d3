"""vLLM's CPU operators, corrected: an adapter touches its own rows only. Imports vLLM, starts no engine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.e2e.serving import ROOT

pytestmark = pytest.mark.engine

PROGRAM = """
import json
import torch
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu

def delta():
    torch.manual_seed(0)
    inputs, a, b = torch.randn(3, 8), torch.randn(2, 1, 4, 8), torch.randn(2, 1, 8, 4)
    indices, hidden, output = torch.tensor([0, -1, 1]), torch.zeros(3, 4), torch.zeros(3, 8)
    punica_cpu.bgmv_shrink(inputs, a, hidden, indices, 1.0)
    lora_ops.sgmv_expand(hidden, b, output, None, torch.ones(3, dtype=torch.long), indices, 3, 1, 3, True)
    return output

before = delta()
import engines.worker.cpu
after = delta()
hidden = torch.zeros(9, 4)
punica_cpu.bgmv_shrink(torch.randn(9, 8), torch.randn(2, 1, 4, 8), hidden, torch.tensor([0, 1]), 1.0)
print(json.dumps({
    "an adapter before": bool(before[1].any()),
    "an adapter after": bool(after[1].any()),
    "others as before": bool(torch.equal(before[0::2], after[0::2])),
    "rows without an index": bool(hidden.any()),
}))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, bool]:
    """What vLLM's operators do without and with the correction, in a process that has loaded nothing else."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, bool] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_rows_without_an_index_of_their_own_are_left_alone(found: dict[str, bool]) -> None:
    assert not found["rows without an index"]


def test_a_base_model_row_gets_no_adapter_and_all_others_stay_as_they_were(found: dict[str, bool]) -> None:
    assert found["an adapter before"], "vLLM has mended it: delete engines/worker/cpu.py"
    assert not found["an adapter after"]
    assert found["others as before"]
