"""console/src/types.ts says what the admin API answers."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from console.api_types import types
from routing.scheduling.replica_figures import ReplicaFigures

TYPES = Path(__file__).parents[3] / "console" / "src" / "types.ts"


def declared(name: str) -> str:
    """What stands behind a name, up to the next one."""
    (found,) = re.findall(rf"^export (?:interface|type) {name} (.*?)^$", types() + "\n", re.M | re.S)
    return str(found)


def test_the_file_is_up_to_date() -> None:
    assert TYPES.read_text() == types(), "make console"


def test_the_console_knows_every_figure_of_a_replica() -> None:
    names = re.findall(r"^  (\w+):", declared("ReplicaView"), re.M)
    assert {each.name for each in fields(ReplicaFigures)} < set(names)


def test_types_are_written_as_typescript() -> None:
    assert "  itl_s: number | null;" in declared("ReplicaView")
    assert "  in_slots: Slot[];" in declared("ReplicaView")
    assert "  first_token_p99_s: (number | null)[];" in declared("HistoryAnswer")
    assert "  queued_by_band: Record<string, number>;" in declared("PoolView")
    assert declared("ReplicaState").startswith('= "ready" | "draining"')
    assert '  place: "slot" | "host";' in declared("Resident")
