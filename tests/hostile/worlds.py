"""Whom does the hostile client attack? What it knows, and holds, of two fleets."""

from __future__ import annotations

from tests.hostile.request import World

# Of `tests/integration/test_hostile.py`. A key that is made at run time takes its place there.
SMALL = World(
    key="key-of-mallory",
    admin_key="key-of-mallory-admin",
    models=("support", "sales", "plain", "canary", "canary@2"),
    foreign=("anna-gmbh", "bertram-kg", "annas-weights", "bertrams-weights", "annas-model", "bertrams-model"),
    broken_keys=("key-of-anna-gmb", "KEY-OF-ANNA-GMBH", "key-of-bertram-kg-", "tk_" + "a" * 40),
)
# The demo fleet, where initech is the hostile one.
DEMO = World(
    key="initech-demo-key",
    admin_key="initech-admin-key",
    models=("support",),
    foreign=("acme", "globex", "umbrella", "acme-support", "globex-support", "acme-sales", "sales"),
    broken_keys=("acme-demo-ke", "ACME-DEMO-KEY", "globex-demo-key-", "tk_" + "a" * 40),
)
WORLDS = {"small": SMALL, "demo": DEMO}
