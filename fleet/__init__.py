"""fleet.yaml: its values; reading, checking and writing it; the part of it that one pool needs."""

from fleet.files import check_files
from fleet.loader import LoadedFleet, load_fleet, load_fleet_with_warnings, read_fleet
from fleet.problems import FleetError, Problem
from fleet.projection import project

__all__ = [
    "FleetError",
    "LoadedFleet",
    "Problem",
    "check_files",
    "load_fleet",
    "load_fleet_with_warnings",
    "project",
    "read_fleet",
]
