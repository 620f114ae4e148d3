"""Live figures: every model's last minute with a verdict and its reason, and a snapshot of all; pure.

Time is an argument; nothing here has a clock, waits or logs.
"""

from routing.observing.live.figures import Figures
from routing.observing.live.snapshot import LiveView, Snapshot

__all__ = ["Figures", "LiveView", "Snapshot"]
