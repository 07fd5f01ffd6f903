"""Memory of a step is kept for the next one. glibc gives large blocks back to the system when they are freed, and every page
of the next step is then faulted in and zeroed anew: a tenth of a training step (LOG.md).
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


@cache
def keep_freed_memory() -> bool:
    """From now on this process keeps what it frees; for loops that allocate the same again and again, not for servers.

    Only where glibc's malloc is in use and the user has not set it up (MALLOC_..., another malloc); returns whether.
    """
    theirs = any(name.startswith("MALLOC_") for name in os.environ) or "LD_PRELOAD" in os.environ
    if platform.libc_ver()[0] != "glibc" or theirs:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 64 * 2**20))
    return all(mallopt(name, value) for name, value in settings)
