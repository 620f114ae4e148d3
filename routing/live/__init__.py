"""How does each model fare at this moment? Windowed figures, a verdict with its reason, one picture; pure.

Time comes in; nothing here has a clock, waits or logs.
"""

from routing.live.figures import Figures
from routing.live.picture import LiveView, Picture

__all__ = ["Figures", "LiveView", "Picture"]
