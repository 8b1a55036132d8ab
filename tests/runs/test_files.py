"""Files written whole or not at all, on real file systems: a full one, a read-only one, and one with a limit."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.permissions import permissions_hold

from sdft_cli.errors import SdftError, UsageError, explained
from sdft_cli.runs.files import check_place, naming, write_together, write_whole

#: Run as root of a namespace of its own: fill a disk of 64 KiB, look, free it, look again; and a disk to read from.
ON_A_SMALL_DISK = """
import os, subprocess, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from sdft_cli.errors import SdftError, explained
from sdft_cli.runs.checkpoints import Checkpoints
from sdft_cli.runs.files import check_place, write_whole
from sdft_cli.runs.records import StageId

full, fixed = Path(sys.argv[1]), Path(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", full], check=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", fixed], check=True)

def said(do):
    try:
        do()
    except Exception as error:
        told = explained(error)
        return (told.code, told.message) if told else repr(error)

def weights(model, state):
    save_file({"a": torch.zeros(40_000)}, model / "a.safetensors")

def optimizer(model, state):
    with (state / "state.pt").open("wb") as file:
        torch.save({"a": torch.zeros(40_000)}, file)

write_whole(full / "log", "old")
stage = Checkpoints(full).of(StageId(1, "a"))
stage.write(1, lambda model, state: None)
for do in (lambda: write_whole(full / "log", "x" * 100_000), lambda: stage.write(2, weights),
           lambda: stage.write(2, optimizer), lambda: write_whole(fixed / "a" / "log", "x"),
           lambda: check_place(fixed / "a" / "b")):
    print(said(do))
print((full / "log").read_text(), sorted(p.name for p in stage.folder.iterdir()), Checkpoints(full).latest().step)
write_whole(full / "log", "x" * 30_000)
print(len((full / "log").read_text()))
"""


def test_a_full_disk_and_a_read_only_one(tmp_path: Path) -> None:
    full, fixed = tmp_path / "full", tmp_path / "fixed"
    full.mkdir()
    fixed.mkdir()
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        if subprocess.run([*own, "mount", "-t", "tmpfs", "none", full], check=False, capture_output=True).returncode:
            pytest.skip("no file systems can be mounted here")
    except FileNotFoundError:
        pytest.skip("no unshare here")
    line = [*own, sys.executable, "-c", ON_A_SMALL_DISK, str(full), str(fixed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    no_space, second = "no space left on device", f"cannot write the checkpoint {full}/stages/01-a/step-000002"
    assert done.stdout.splitlines() == [
        str((1, f"{full}/log: {no_space}")),
        str((1, f"{second}: {no_space}")),
        str((1, f"{second}: {no_space}")),
        str((2, f"{fixed}/a: read-only file system")),
        str((2, f"{fixed}: read-only file system")),
        "old ['step-000001'] 1",
        "30000",
    ]


@pytest.fixture
def small_files():
    """No file can grow beyond 1000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_several_files_are_written_together_or_not_at_all(tmp_path: Path, small_files) -> None:
    first, second = tmp_path / "a" / "first", tmp_path / "b" / "second"
    write_together({first: "old", second: "old"})
    with pytest.raises(OSError) as refused:
        write_together({first: "new", second: "x" * 2000})
    assert refused.value.errno == errno.EFBIG and refused.value.filename == str(second)
    assert (first.read_text(), second.read_text()) == ("old", "old")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "first", "second"]
    write_together({first: "new", second: b"\xff"})
    assert (first.read_text(), second.read_bytes()) == ("new", b"\xff")


def test_an_error_names_the_file_and_not_its_temporary_name(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with permissions_hold(), pytest.raises(PermissionError) as refused:
        write_whole(tmp_path / "file", "x")
    assert refused.value.filename == str(tmp_path / "file")
    with pytest.raises(OSError) as named, naming(tmp_path / "log"):
        raise OSError(errno.ENOSPC, "full")
    assert named.value.filename == str(tmp_path / "log")


def test_a_place_is_checked_before_anything_is_made_there(tmp_path: Path) -> None:
    check_place(tmp_path / "a" / "b")
    check_place(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    (tmp_path / "closed").mkdir(mode=0o555)
    for place in ("file/a", "link/a", "closed/a", "x" * 300):
        with permissions_hold(), pytest.raises(OSError) as refused:
            check_place(tmp_path / place)
        told = explained(refused.value)
        assert isinstance(told, UsageError) and told.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["closed", "file", "link"]


# --- what the system's errors become ------------------------------------------------------------------------------


def test_errors_of_libraries_are_told_by_the_number_they_carry() -> None:
    rust = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    told = explained(rust, "model.safetensors")
    assert told and (told.code, told.message) == (1, "model.safetensors: no space left on device")
    torch = RuntimeError("unexpected pos 704 vs 598")
    torch.__context__ = OSError(errno.EDQUOT, "quota")
    told = explained(torch, "state.pt")
    assert told and told.message.startswith("state.pt: ") and "quota" in told.hint


def test_memory_that_is_used_up_says_what_to_lower() -> None:
    import torch

    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    for error in (
        refused.value,
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB"),
    ):
        told = explained(error)
        assert told and told.code == 1 and told.message.startswith("out of memory") and "engine.max_batch" in told.hint
    assert "2.50 GiB" in told.message


def test_anything_else_is_a_fault() -> None:
    for error in (ValueError("x"), RuntimeError("x"), OSError("without a number"), PermissionError(errno.EACCES, "x")):
        assert explained(error) is None
    mine = SdftError("x")
    assert explained(mine) is mine
