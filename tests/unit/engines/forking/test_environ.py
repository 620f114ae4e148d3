"""What does the kernel show of a process's environment after a value was written over?"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from engines.forking.environ import ROOM, Slot, with_room

WRITES = """
import sys
from engines.forking.environ import Slot
slot = Slot.find("A_MARK")
for value in sys.argv[1:]:
    slot.write(value)
shown = open("/proc/self/environ", "rb").read().split(b"\\0")
print([part.decode() for part in shown if part.startswith((b"A_MARK=", b"ANOTHER="))])
"""


def written(mark: str, *values: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "A_MARK": mark, "ANOTHER": "stays"}
    command = [sys.executable, "-c", WRITES, *values]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_the_last_value_is_shown_and_nothing_else_is_touched() -> None:
    shown = written(with_room("first"), "a longer one, é", "short").stdout
    assert sorted(eval(shown)) == ["ANOTHER=stays", "A_MARK=short"]


def test_a_value_that_has_no_room_is_refused() -> None:
    assert "ValueError" in written(with_room("first"), "x" * (ROOM + 1)).stderr
    assert "ValueError: A_MARK was not started with room" in written("first", "second").stderr


def test_a_variable_that_is_not_there_is_not_found() -> None:
    with pytest.raises(ValueError, match="NO_SUCH_VARIABLE"):
        Slot.find("NO_SUCH_VARIABLE")
