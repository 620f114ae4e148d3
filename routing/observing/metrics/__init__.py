"""The gateway's metrics page.

definitions.py  every metric of the gateway: name, labels, buckets, meaning
series.py       numbers of one model, pool or replica, counted as requests end
models.py       which models have series of their own; the rest share `other`
gauges.py       gauges read from the scheduler at a scrape
exposition.py   the two text formats
page.py         counts settled requests, renders the page
document.py     docs/metrics.md
"""

from routing.observing.metrics.exposition import TextFormat
from routing.observing.metrics.page import GatewayMetrics

__all__ = ["GatewayMetrics", "TextFormat"]
