"""A process beside the tests: says of several machines what is told of them, and how engines would start.

Its argument is JSON: machines by name, each a description for the driver of the tests; the slices wanted;
a base model. "no driver" is a machine where its library is not found.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pynvml

from engines.devices.layout import SliceError
from engines.devices.pinning import pin
from fleet.mig import SliceName
from fleet.types import BaseModel
from tenantry.devices import report


def start(wanted: dict[str, Any], model: BaseModel) -> dict[str, Any]:
    """How an engine would start on a slice, or why not."""
    try:
        pinned = pin(SliceName(**wanted), model, on_cpu=False)
    except SliceError as error:
        return {"error": str(error)}
    return {"environment": pinned.environment, "kv_cache_bytes": pinned.model.kv_cache_bytes}


def not_found(_: str) -> None:
    """Fail as loading a library does that is not there."""
    raise OSError("cannot open shared object file")


def main() -> None:
    """Answer."""
    asked = json.loads(sys.argv[1])
    model = BaseModel(**asked["model"])
    answers = {}
    find = pynvml.CDLL
    for name, machine in asked["machines"].items():
        pynvml.nvmlLib = None
        pynvml.CDLL = not_found if name == "no driver" else find
        os.environ["FAKE_NVML"] = machine
        starts = [start(wanted, model) for wanted in asked["wanted"]]
        answers[name] = {"told": report(None), "starts": starts}
    print(json.dumps(answers))  # noqa: T201


if __name__ == "__main__":
    main()
