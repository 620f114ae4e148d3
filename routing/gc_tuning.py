"""When does Python look for cycles? Rarely, few objects at a time, never among what is there at the start.

A request leaves no cycle, so that the collector would walk what runs over and over, for nothing; and while it
walks, everybody waits. Thresholds are those of `gc.set_threshold`.
"""

from __future__ import annotations

import gc

YOUNG = 10_000  # objects made and not freed since the last collection; Python itself takes 700
# Young collections before their survivors are walked. With Python's own 10 that is a pause of 60 ms while a
# flood is queued (two-core EPYC); a few more and shorter ones walk no more than that one.
MIDDLE = 2
OLD = 50  # collections of survivors before everything is walked: as rarely as with 10 and 10


def rest() -> None:
    """Collect once, keep what is there for good, and collect rarely from here on."""
    gc.collect()
    gc.freeze()  # what was imported stays; walking it in every full collection would cost tens of ms
    gc.set_threshold(YOUNG, MIDDLE, OLD)
