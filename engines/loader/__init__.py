"""Loads adapters into the engine and unloads them. Calls vLLM in-process, never by path.

reconciler.py  brings the engine to the desired set, after every restart too; keeps failures
resident.py    the adapters of one running engine: loads, leases, evictions, pins
slots.py       how many adapters may run at once
engine.py      vLLM's calls, which end with an error when the engine dies
files.py       checks an adapter's files before the engine reads them
metrics.py     load times, failures, evictions and residents, on the engine's page
"""

from engines.loader.engine import EngineDied, LoraEngine, reason_of
from engines.loader.metrics import AdapterMetrics
from engines.loader.reconciler import Reconciler
from engines.loader.resident import AdapterLoader, FolderOf

__all__ = [
    "AdapterLoader",
    "AdapterMetrics",
    "EngineDied",
    "FolderOf",
    "LoraEngine",
    "Reconciler",
    "reason_of",
]
