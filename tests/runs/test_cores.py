"""Cores by affinity and by a container's limit."""

from pathlib import Path

import pytest

from sdft_cli.runs import cores


def group(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("inner", "outer", "want"), [("max", "150000", 1.5), ("50000", "max", 0.5), ("max", "max", None)]
)
def test_the_tightest_group_counts(tmp_path: Path, inner: str, outer: str, want: float | None) -> None:
    """cgroup v2: a container in a service, either of which may be limited."""
    own, root = tmp_path / "own", tmp_path / "fs"
    own.write_text("0::/service/container\n")
    group(root / "service" / "container", cpu__max=f"{inner} 100000\n")
    group(root / "service", cpu__max=f"{outer} 100000\n")
    assert cores.quota(root, own) == want


def test_version_1_has_other_files(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "fs"
    own.write_text("5:memory:/elsewhere\n2:cpu,cpuacct:/box\n")
    group(root / "cpu" / "box", cpu__cfs_quota_us="250000\n", cpu__cfs_period_us="100000\n")
    group(root / "cpu", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert cores.quota(root, own) == 2.5
    assert cores.quota(root, tmp_path / "none") is None


@pytest.mark.parametrize(("limit", "want"), [(None, 8), (0.5, 1), (2.5, 3), (64.0, 8)])
def test_a_limit_is_rounded_up_to_whole_cores(monkeypatch: pytest.MonkeyPatch, limit: float | None, want: int) -> None:
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "quota", lambda: limit)
    assert cores.cores() == want
