"""The demo fleet's keys, which its documentation makes public. Pure."""

from __future__ import annotations

from fleet.types import Fleet

# sha256 of `<name>-demo-key` for acme, globex, initech, umbrella and operator
DEMO_KEY_HASHES = frozenset(
    {
        "8676d15d94dabdd1283e6c407e2bb08a7b5c13b4e3667d4795c17172e080a3d4",
        "2e2764ef486a4aa498e60ef5ed6b88ce7dd8bfc8b3309c5c15950a5c3d1a8c20",
        "ab2c4f97149e2612d98e30fea86765c0b325b9c0b5879eba53ccce7d75eea52c",
        "8771df5d8cec9323936467b13567b94ef54a0ae719019f86a329dac541006125",
        "af6e279a58895504c94a72c8e65a80d063f8891d8b656b08a77ac6c5887ee9c9",
    }
)


def demo_keys(fleet: Fleet) -> frozenset[str]:
    """Return the hashes of the demo's keys that are valid in this fleet."""
    tenants = (tenant.key_hashes for tenant in fleet.tenants.values())
    return DEMO_KEY_HASHES & fleet.gateway.operator_key_hashes.union(*tenants)


def uses_demo_keys(fleet: Fleet) -> bool:
    """Whether every reader of the documentation can call this fleet."""
    return bool(demo_keys(fleet))
