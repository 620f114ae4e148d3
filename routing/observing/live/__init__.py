"""How does each model fare at this moment? Windowed figures, a verdict with its reason, one picture; pure.

Time comes in; nothing here has a clock, waits or logs.
"""

from routing.observing.live.figures import Figures
from routing.observing.live.picture import LiveView, Picture

__all__ = ["Figures", "LiveView", "Picture"]
