"""The device a model is put on, by the name that a recipe gives it, and what to know about it."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

import torch

from sdft_cli.errors import UsageError
from sdft_cli.runs import folder
from sdft_cli.runs.cores import cores

#: Instructions that multiply bf16, as `torch.cpu.get_capabilities` calls them on x86 and ARM.
_BF16 = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")
#: Settings under which ATen and oneDNN use none of them.
_WITHOUT_BF16 = {
    "ATEN_CPU_CAPABILITY": ("DEFAULT", "AVX2"),
    "ONEDNN_MAX_CPU_ISA": ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"),
}
#: Parameters from which on products of matrices take most of a step.
MULTIPLIED_FROM = 1 << 26


def find(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is the GPU where there is one, else the CPU. `UsageError` without it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"runtime.device={name}: no such device", _choices()) from error
    if device.type == "cuda":
        _check_gpu(name, device)
    elif device.type != "cpu" or device.index:
        raise UsageError(f"runtime.device={name} is not supported", _choices())
    return device


def raise_if_failed(error: Exception) -> None:
    """Raise ``error`` again if the device has failed: after an illegal access, say, every later call fails too. That a
    kernel is missing for it is an error of the same class, and leaves it sound."""
    if isinstance(error, torch.AcceleratorError):
        try:
            torch.cuda.synchronize()
        except (RuntimeError, AssertionError):
            raise error from None


def _check_gpu(name: str, device: torch.device) -> None:
    if not torch.cuda.is_available():
        built = "finds no GPU" if torch.backends.cuda.is_built() else "is built without CUDA"
        hint = f"{_choices()}; for a GPU, see that `nvidia-smi` lists it, and install torch for its CUDA version"
        raise UsageError(f"runtime.device={name}: torch {torch.__version__} {built}", hint)
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise UsageError(f"runtime.device={name}: this machine shows {count} GPU{'s' * (count > 1)}", _choices())


def _choices() -> str:
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return "choices: " + ", ".join(["auto", "cpu", *(f"cuda:{number}" for number in gpus)])


def set_threads(wanted: int | None) -> None:
    """Let torch use ``wanted`` CPU threads. None: one for each physical core, which is torch's own choice, unless
    OMP_NUM_THREADS names a number; but no more than a container's limit allows, which torch does not know."""
    if wanted is None and "OMP_NUM_THREADS" not in os.environ:
        wanted = min(torch.get_num_threads(), cores())
    if wanted is not None:
        torch.set_num_threads(wanted)


@functools.cache
def slowness(device: torch.device, dtype: torch.dtype) -> str:
    """A sentence on a precision that the device computes slowly; empty where there is nothing to say."""
    if device.type == "cpu" and dtype == torch.bfloat16 and not _multiplies_bf16():
        return (
            "this processor has no bf16 instructions: bfloat16 is several times slower here than runtime.dtype=float32"
        )
    return ""


def speed_up(device: torch.device, dtype: torch.dtype, parameters: int) -> str:
    """A sentence on a precision that would be faster; empty where there is nothing to say."""
    if device.type != "cpu" or dtype != torch.float32 or parameters < MULTIPLIED_FROM or not _has_matrix_units():
        return ""
    return (
        "this processor has matrix units for bfloat16 (AMX): with runtime.dtype=bfloat16 a step takes about two thirds "
        "of the time"
    )


def processor() -> dict[str, str | int | None]:
    """What figures of speed and the rounding of sums depend on: the CPU's name, its cores, and the widest instructions
    that torch uses of it."""
    instructions = torch.backends.cpu.get_cpu_capability()
    return {"cpu": folder.processor(), "cores": os.cpu_count(), "instructions": instructions}


def processor_text() -> str:
    """`processor` as a line."""
    facts = processor()
    return f"{facts['cpu']}, {facts['cores']} cores, {facts['instructions']}"


def _multiplies_bf16() -> bool:
    """Whether the CPU multiplies bf16 itself, as far as torch can tell and may use it."""
    if _forbidden():
        return False
    capabilities = _capabilities()
    if capabilities:
        return any(capabilities.get(name) for name in _BF16)
    return bool(
        getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)()
    )  # an older torch, which knows x86 alone


def _has_matrix_units() -> bool:
    return not _forbidden() and bool(_capabilities().get("amx_bf16"))


def _forbidden() -> bool:
    return any(os.environ.get(variable, "").upper() in values for variable, values in _WITHOUT_BF16.items())


def _capabilities() -> Mapping[str, object]:
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities
