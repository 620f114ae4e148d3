"""Whole models that the gateway fetches: what is known of them, their steps, and what operators ask for."""

from routing.lifecycle.whole.models import WholeModels

__all__ = ["WholeModels"]
