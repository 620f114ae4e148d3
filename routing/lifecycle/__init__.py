"""Adapters, tenants and aliases that come and go: catalog, store and engines kept in step."""

from routing.lifecycle.fleets import FleetChanges
from routing.lifecycle.lifecycle import Lifecycle
from routing.lifecycle.operations import Manager

__all__ = ["FleetChanges", "Lifecycle", "Manager"]
