"""The flags that name devices: how many, and of how much memory, where these are not this machine's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from sdft_cli.errors import UsageError

if TYPE_CHECKING:
    from sdft_cli.training.memory_outlook import Hardware

Gpus = Annotated[int | None, typer.Option("--gpus", min=1, help="Use so many GPUs of this machine, or plan for them.")]
DeviceMemory = Annotated[
    str | None,
    typer.Option(
        "--device-memory", help="Plan for GPUs of this size, such as 80GB, which need not be in this machine."
    ),
]
UNITS = {"GB": 10**9, "GIB": 1 << 30, "MB": 10**6, "MIB": 1 << 20}


def check_memory_flag(device_memory: str | None, dry_run: bool) -> None:
    """Refuse a size of devices that a real training cannot honour."""
    if device_memory is not None:
        bytes_of(device_memory)
        if not dry_run:
            raise UsageError("--device-memory: training takes what memory there is", "add --dry-run, or leave it out")


def hardware_of(gpus: int | None, device_memory: str | None) -> Hardware:
    """The devices that the flags name."""
    from sdft_cli.training.memory_outlook import Hardware

    return Hardware(gpus or 1, None if device_memory is None else bytes_of(device_memory))


def bytes_of(text: str) -> int:
    """``80GB``, ``24.5 GiB``: an amount of memory in bytes."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)", text.strip())
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or (size := int(float(found[1]) * unit)) < 1:
        raise UsageError(f"--device-memory {text}: not an amount of memory", "write 80GB or 80GiB")
    return size
