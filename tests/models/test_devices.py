"""Devices by name: those that are not there are refused in one line, before any data is read."""

from __future__ import annotations

import pytest
import torch

from sdft_cli.config.recipe import Runtime
from sdft_cli.errors import UsageError
from sdft_cli.models import devices, pretrained

NO_GPU = not torch.cuda.is_available()


def test_names() -> None:
    assert devices.find("cpu") == torch.device("cpu")
    assert devices.find("auto").type == ("cpu" if NO_GPU else "cuda")
    for name in ("gpu", "mps", "meta", "cuda:x", "cpu:1", "", "cuda:4711"):
        with pytest.raises(UsageError, match=f"runtime.device={name}") as refused:
            devices.find(name)
        assert refused.value.hint.startswith("choices: auto, cpu")


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
@pytest.mark.parametrize("command", ["train --dry-run", "train", "probe", "sweep --grid lr=1e-4,1e-3", "eval micro"])
def test_a_missing_gpu_is_found_before_data_is_read(sdft, command: str) -> None:
    code, _, err = sdft(*command.split(), "--tasks", "micro-tooluse", "--set", "runtime.device=cuda")
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert code == 2 and len(errors) == 1 and "runtime.device=cuda: torch" in errors[0]


def test_bf16_is_called_slow_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert not devices.slowness(cpu, torch.float32)
    devices.slowness.cache_clear()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert "bfloat16 is several times slower" in devices.slowness(cpu, torch.bfloat16)
    devices.slowness.cache_clear()


@pytest.mark.parametrize(
    ("units", "parameters", "said"), [(True, 10**8, True), (True, 10**6, False), (False, 10**8, False)]
)
def test_bf16_is_advised_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, units: bool, parameters: int, said: bool
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": units})
    for variable in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(variable, raising=False)
    assert ("runtime.dtype=bfloat16" in devices.speed_up(cpu, torch.float32, parameters)) == said
    assert not devices.speed_up(cpu, torch.bfloat16, parameters)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not devices.speed_up(cpu, torch.float32, parameters)


def test_precision_is_the_devices_own() -> None:
    assert pretrained.placement(Runtime(device="cpu")) == (torch.device("cpu"), torch.float32)
    assert pretrained.placement(Runtime(device="cpu", dtype="bfloat16"))[1] == torch.bfloat16


@pytest.mark.parametrize(
    ("wanted", "variable", "usable", "want"),
    [(None, None, 2, 2), (None, None, 16, 8), (None, "8", 2, 8), (3, None, 2, 3), (3, "8", 2, 3)],
)
def test_threads(
    monkeypatch: pytest.MonkeyPatch, wanted: int | None, variable: str | None, usable: int, want: int
) -> None:
    """On eight cores: as many as a container may use, unless the user names a number."""
    now = [8]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: now.__setitem__(0, n))
    monkeypatch.setattr(devices, "cores", lambda: usable)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    devices.set_threads(wanted)
    assert now == [want]
