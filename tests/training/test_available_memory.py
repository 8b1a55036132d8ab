"""What is free, by the tightest limit on this process."""

from pathlib import Path

import torch

from sdft_cli.training import available_memory


def test_the_tightest_cgroup_limit_counts(tmp_path: Path) -> None:
    """Files as in cgroup v2: the inner group is unlimited, the outer one uses 80 of 100 MB, 30 of them for cache."""
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    inner = root / "outer" / "inner"
    inner.mkdir(parents=True)
    own.write_text("0::/outer/inner\n")
    for folder, most, used in ((inner, "max", 10), (root / "outer", str(100_000_000), 80_000_000)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 5\ninactive_file 30000000\n")
    assert available_memory._cgroup(root, own) == 50_000_000
    assert available_memory._cgroup(root, tmp_path / "none") is None
    free = available_memory.free_bytes(torch.device("cpu"))
    assert free is None or free > 1_000_000
