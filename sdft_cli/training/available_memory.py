"""Memory as it is now: what is free on a device, and what this process holds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from sdft_cli.runs import cgroups

#: The files of a memory limit, by version: the limit, what is used, and the name of file cache in memory.stat.
_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_bytes(device: torch.device) -> int | None:
    """Bytes that this process could still take on ``device``; None where that cannot be found out."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min((free for free in (_available(), _cgroup()) if free is not None), default=None)


def resident(what: Literal["VmRSS", "VmHWM"] = "VmRSS") -> int:
    """Bytes of this process in memory, now (VmRSS) or at most so far (VmHWM), from Linux's /proc; 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{what}:")), 0)


def free_swap() -> int:
    """Bytes of swap that are free; 0 where that cannot be found out."""
    return _meminfo("SwapFree") or 0


def _available() -> int | None:
    return _meminfo("MemAvailable")


def _meminfo(name: str) -> int | None:
    """A figure of Linux's /proc/meminfo in bytes; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def _cgroup(root: Path = cgroups.ROOT, own: Path = cgroups.OWN) -> int | None:
    """Bytes left by the tightest memory limit on this process (cgroup v2 or v1); file cache counts as free."""
    left = (_left(folder, *_FILES[version]) for folder, version in cgroups.groups("memory", root, own))
    return min((bytes_ for bytes_ in left if bytes_ is not None), default=None)


def _left(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    try:
        most, used, lines = ((folder / name).read_text(encoding="utf-8") for name in (limit, usage, "memory.stat"))
        stat = dict(line.split() for line in lines.splitlines())
    except (OSError, ValueError):
        return None
    return None if most.strip() == "max" else max(0, int(most) - int(used) + int(stat.get(cache, 0)))
