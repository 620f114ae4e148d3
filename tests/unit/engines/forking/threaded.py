"""A module that starts a thread as it is imported: a process with it must not be forked."""

from __future__ import annotations

import threading
import time

threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
