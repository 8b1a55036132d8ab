"""The control groups of this process (Linux, v2 and v1), where containers have their limits; empty elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class Group(NamedTuple):
    """A group's folder, and the version of its interface: its files have other names in v1."""

    folder: Path
    version: int


def groups(controller: str, root: Path = ROOT, own: Path = OWN) -> Iterator[Group]:
    """This process's groups that may limit ``controller`` ("cpu", "memory"), each before those that it is in."""
    try:
        entries = [line.split(":", 2) for line in own.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return
    for _, controllers, path in entries:
        if not controllers:
            yield from _upwards(root, path, 2)
        elif controller in controllers.split(","):
            yield from _upwards(root / controller, path, 1)


def _upwards(mount: Path, path: str, version: int) -> Iterator[Group]:
    group = mount / path.strip("/")
    for folder in (group, *group.parents):
        if folder.is_relative_to(mount):
            yield Group(folder, version)
