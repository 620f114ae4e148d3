"""The console's built page, as files that the gateway serves.

`make console` builds `static/` from the sources in `console/`. It is read once, when a gateway starts. The
page itself holds nothing of the fleet: it asks `/admin/v1` for everything that it shows, with
the key of whoever looks.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import orjson

from routing.site import TYPES, Asset

CONSOLE_PATH = "/console"
STATIC = Path(__file__).parent / "static"
FOR_BROWSERS = {"/": Asset.redirect(CONSOLE_PATH)}


@cache
def pages(folder: Path = STATIC) -> dict[str, Asset]:
    """Read the built page: its files by path. Raises `OSError` where there is none."""
    files = {f.name: f.read_bytes() for f in folder.iterdir() if f.suffix in TYPES}
    if "index.html" not in files:
        raise FileNotFoundError(f"{folder} holds no built console; `make console` builds it")
    # Names hold a hash of what is in the file; the page, whose name stays, is asked for again each time.
    page = Asset.of("index.html", files.pop("index.html"), kept=False)
    assets = {f"{CONSOLE_PATH}/{name}": Asset.of(name, body, kept=True) for name, body in files.items()}
    return assets | {CONSOLE_PATH: page, f"{CONSOLE_PATH}/": page}


def sign_in(*, by_proxy: bool) -> dict[str, Asset]:
    """Make the file that tells the page, before anybody is known, whether a proxy signs users in."""
    body = orjson.dumps({"by_proxy": by_proxy})
    return {f"{CONSOLE_PATH}/sign-in.json": Asset.of("sign-in.json", body, kept=False)}
