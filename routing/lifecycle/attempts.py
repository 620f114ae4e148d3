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
    for delay_s in (*RETRY_DELAYS_S, None):
        try:
            await attempt()
            return
        except (SourceUnavailable, StoreFull) as error:
            if delay_s is None:
                await quarantine(error)
                return
            await again(str(error))
            await asyncio.sleep(delay_s)
        except AdapterError as error:
            await quarantine(error)
            return
        except OSError as error:
            log.exception("%s", what)
            await again(f"the store cannot be written: {error.strerror or type(error).__name__}")
            await asyncio.sleep(delay_s or RETRY_DELAYS_S[-1])
