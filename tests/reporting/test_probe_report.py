"""What a probe says of times on a busy machine, and of what its measured memory includes."""

from typing import Any

import pytest

from sdft_cli.reporting import probe

GIB = 1 << 30


def report(*shares: float | None) -> Any:
    phases = [{"machine_share": share} for share in shares]
    other = {"sft": {"phases": phases[1:]}}
    return {"tasks": [{"training": {"phases": phases[:1]}, "other_training": other}]}


@pytest.mark.parametrize(
    ("shares", "percent"), [((0.3, 0.5), "40 %"), ((None, 0.25), "25 %"), ((0.9, 0.8), ""), ((None,), "")]
)
def test_a_busy_machine_is_named(shares: tuple[float | None, ...], percent: str) -> None:
    lines = probe._busy(report(*shares))
    assert len(lines) == bool(percent)
    assert all(f"got {percent} of the processor time" in line for line in lines)


def test_the_measured_peak_names_what_it_is_of() -> None:
    process: Any = {"peak_of": "process", "before_bytes": GIB // 2}
    assert "0.50 of it by Python and its libraries" in probe._held(process)
    assert "by Python" not in probe._held({**process, "before_bytes": 0})
    assert "CUDA context" in probe._held({**process, "peak_of": "gpu"})
