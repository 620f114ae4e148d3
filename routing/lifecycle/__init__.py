"""From a registered adapter to one that answers, and to its end: catalog, store and engines kept in step."""

from routing.lifecycle.lifecycle import Lifecycle
from routing.lifecycle.operations import Manager

__all__ = ["Lifecycle", "Manager"]
