"""Root may read and write whatever it likes, so tests of permissions give that up for a moment."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words of 32 bits for each of three sets
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1 << 1, 1 << 2


@contextmanager
def permissions_hold() -> Iterator[None]:
    """In this block permissions hold for this thread, whoever it runs as."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)()
    _check(libc.capget(header, sets))
    effective = sets[0]
    sets[0] = effective & ~(CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH)
    _check(libc.capset(header, sets))
    try:
        yield
    finally:
        sets[0] = effective
        _check(libc.capset(header, sets))


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
