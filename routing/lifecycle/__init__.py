"""Adapters, tenants and aliases that come and go: catalog, store and engines kept in step."""

from routing.lifecycle.fleets import FleetChanges
from routing.lifecycle.lifecycle import Lifecycle
from routing.lifecycle.operations import Manager
from routing.lifecycle.restarts import RollingRestarts

__all__ = ["FleetChanges", "Lifecycle", "Manager", "RollingRestarts"]
