"""What can be measured from outside? The gateway's metrics page.

definitions.py  every metric of the gateway: name, labels, buckets, meaning
series.py       numbers of one model, pool or replica, counted as requests end
models.py       which models have series of their own; the rest share `other`
gauges.py       what a scrape reads of the scheduler at that moment
exposition.py   the two text formats
page.py         counts what is settled, renders the page
document.py     docs/metrics.md
"""

from routing.observing.metrics.exposition import TextFormat
from routing.observing.metrics.page import GatewayMetrics

__all__ = ["GatewayMetrics", "TextFormat"]
