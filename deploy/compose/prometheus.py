"""What does Prometheus scrape beside the gateway? `python -m deploy.compose.prometheus [FLEET]` writes it.

It is the configuration of deploy/observability with the address that the gateway has in compose.yaml, and the
names of a fleet's replicas; those of the demo unless a fleet file is named.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from deploy import observability
from fleet import FleetError, read_fleet
from fleet.types import Fleet

GATEWAY = "gateway:3000"
FOLDER = Path(__file__).parent
DEMO = FOLDER.parents[1] / "fleet.yaml"
TEMPLATE = Path(observability.__file__).parent / "prometheus.yml"
TARGETS = "      - targets: [shared-0, umbrella-0]  # names of replicas: <pool>-<number>\n"
HEAD = (
    "# deploy/observability/prometheus.yml for compose.yaml and the replicas of a fleet: written by\n"
    "# `python -m deploy.compose.prometheus FLEET`, once more when the fleet's replicas have changed.\n"
)


def configuration(fleet: Fleet) -> str:
    """Write the configuration for a fleet."""
    names = [name for pool in fleet.pools.values() for name, _ in pool.replica_models]
    body = TEMPLATE.read_text()
    body = body[body.index("global:") :]  # what stands above tells people what to change
    return HEAD + body.replace("localhost:3000", GATEWAY).replace(
        TARGETS, f"      - targets: [{', '.join(names)}]\n"
    )


def main(arguments: list[str]) -> int:
    """Write `prometheus.yml`; returns an exit status."""
    file = Path(arguments[0]) if arguments else DEMO
    try:
        fleet = read_fleet(file, env=os.environ, keys_needed=False).fleet
    except FleetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    (FOLDER / "prometheus.yml").write_text(configuration(fleet))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
