"""The command `python -m adapters`: add adapters to a gateway, roll them out, look at them."""

from __future__ import annotations

import sys

from adapters.cli import app

if __name__ == "__main__":
    sys.exit(app(prog_name="python -m adapters"))
