"""Reads fleet.yaml: what may stand in it, whether it fits together, and what one pool needs of it."""

from routing.config.files import check_files
from routing.config.loader import LoadedFleet, load_fleet, load_fleet_with_warnings, read_fleet
from routing.config.problems import FleetError, Problem
from routing.config.projection import project

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
