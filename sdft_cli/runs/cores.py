"""Processor cores that this process may use, by its affinity and by a container's limit."""

from __future__ import annotations

import math
import os
from pathlib import Path

from sdft_cli.runs import cgroups
from sdft_cli.runs.cgroups import Group


def cores() -> int:
    """Cores that this process may use at once; a container's limit is rounded up."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return there if (most := quota()) is None else max(1, min(there, math.ceil(most)))


def quota(root: Path = cgroups.ROOT, own: Path = cgroups.OWN) -> float | None:
    """Seconds of processor time that this process may use in a second, by the tightest limit of its cgroups; None
    without a limit."""
    return min(
        (most for group in cgroups.groups("cpu", root, own) if (most := _limit(group)) is not None), default=None
    )


def _limit(group: Group) -> float | None:
    names = ("cpu.max",) if group.version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    try:
        most, period = " ".join((group.folder / name).read_text(encoding="utf-8") for name in names).split()
        share = float(most) / float(period)  # "max" and -1 stand for no limit
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return share if share > 0 else None
