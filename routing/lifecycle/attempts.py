"""Makes a version ready, try after try: a source or a disk may do better later, a fault stays one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from adapters.errors import AdapterError, SourceUnavailable, StoreFull

RETRY_DELAYS_S = (1.0, 5.0, 15.0, 60.0, 300.0)  # after these, a silent source is given up
log = logging.getLogger("tenantry.lifecycle")


async def make_ready(
    what: str,
    attempt: Callable[[], Awaitable[None]],
    again: Callable[[str], Awaitable[None]],
    quarantine: Callable[[AdapterError], Awaitable[None]],
) -> None:
    """Take the attempt until it succeeds, or the version is at fault.

    `again` is told why it did not, before the next one; `quarantine` why there will be none. `what` names the
    version in the log.
    """
    delays_s = iter(RETRY_DELAYS_S)
    while True:
        try:
            await attempt()
            return
        except (SourceUnavailable, StoreFull) as error:
            fault: AdapterError = error
            delay_s = next(delays_s, None)
        except AdapterError as error:
            fault, delay_s = error, None
        except OSError as error:  # the machine's fault, however often
            log.exception("%s", what)
            fault = AdapterError(f"the store cannot be written: {error.strerror or type(error).__name__}")
            delay_s = next(delays_s, RETRY_DELAYS_S[-1])
        except Exception as error:
            log.exception("%s", what)
            fault = AdapterError(f"it failed with {type(error).__name__}; the gateway's log says where")
            delay_s = next(delays_s, None)
        if delay_s is None:
            await quarantine(fault)
            return
        await again(str(fault))
        await asyncio.sleep(delay_s)
