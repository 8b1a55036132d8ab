"""Places that a command cannot write to or read: one line, a hint, an exit code, and nothing half-written.

The system refuses for real: a limit on the size of files stands for a full disk (`tests/runs/test_files.py` fills one),
and root gives up its privileges for a moment.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.permissions import permissions_hold
from support.run_folder import make_run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and places that are no good."""
    folder = tmp_path_factory.mktemp("world")
    make_run(folder / "run", "sdft")
    (folder / "locked").mkdir(mode=0o555)
    (folder / "file").write_text("something else")
    (folder / "nowhere").symlink_to(folder / "missing")
    (folder / "circle").symlink_to(folder / "circle")
    return folder


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes: real writes fail, as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


#: place -> what is wrong with it
PLACES = {
    "locked/out": "permission denied",
    "file": "file",
    "file/out": "file",
    "nowhere": "link to nowhere",
    "circle/out": "circle",
    "n" * 300: "name too long",
}
#: Commands that write, each with {out} for the place.
WRITERS = {
    "prepare": "prepare --tasks micro-tooluse --data {out}",
    "report": "report {world}/run --out {out}",
    "eval": "eval micro --tasks micro-tooluse --data {data} --out {out}",
    "junit": "eval micro --tasks micro-tooluse --data {data} --min-accuracy micro-tooluse=0.1 --junit {out}/x.xml",
    "train": "train --tasks micro-tooluse --data {data} --out {out}",
    "sweep": "sweep --tasks micro-tooluse --data {data} --grid lr=1e-4,1e-3 --out {out}",
    "demo": "demo --quick --out {out}",
}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[:10])
@pytest.mark.parametrize("command", WRITERS)
def test_a_place_that_cannot_be_written_to_is_one_line(
    sdft, world: Path, micro_data: Path, command: str, place: str
) -> None:
    before = listing(world)
    words = WRITERS[command].format(out=world / place, world=world, data=micro_data).split()
    with permissions_hold():
        code, _, err = sdft(*words)
    lines = [line for line in err.splitlines() if line.startswith(("error:", "hint:"))]
    assert code == 2 and len(lines) == 2 and "Traceback" not in err, err
    assert PLACES[place] in " ".join(lines), err
    assert listing(world) == before


READERS = {
    "recipe": "train {file}",
    "completions": "grade micro-tooluse --completions {file} --data {data}",
    "source": "prepare --source science={file}",
    "columns": "prepare --source mine={data}/micro-tooluse/train.jsonl --columns mine={file}",
    "plug-in": "tasks --plugin {file}",
}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("kind", ["unreadable", "folder"])
def test_a_file_that_cannot_be_read_is_one_line(sdft, tmp_path, micro_data: Path, command: str, kind: str) -> None:
    file = tmp_path / "given.py"
    file.mkdir() if kind == "folder" else file.write_text("x = 1\n")
    file.chmod(0o000 if kind == "unreadable" else 0o755)
    words = READERS[command].format(file=file, data=micro_data).split()
    with permissions_hold():
        code, _, err = sdft(*words)
    lines = [line for line in err.splitlines() if line.startswith(("error:", "hint:"))]
    assert code == 2 and 1 <= len(lines) <= 2 and "Traceback" not in err, err
    assert file.name in lines[0]


def test_a_disk_that_is_full_leaves_nothing_half_written(sdft, world: Path, tmp_path: Path) -> None:
    with small_files(30_000):  # less than a train split, and less than a figure
        for words in (("prepare", "--tasks", "micro-tooluse"), ("report", f"{world}/run", "--out", "page")):
            code, _, err = sdft(*words)
            lines = [line for line in err.splitlines() if line.startswith(("error:", "hint:"))]
            assert code == 1 and "file too large" in lines[0] and "ulimit -f" in lines[1], err
    assert not [path for path in tmp_path.rglob("*") if ".partial" in path.name or path.suffix == ".tmp"]
    assert not (tmp_path / "data" / "micro-tooluse").exists() and not list(tmp_path.glob("page/*.html"))
    assert sdft("prepare", "--tasks", "micro-tooluse")[0] == 0


def test_an_evaluation_that_cannot_be_kept_is_still_reported(tmp_path: Path, capsys) -> None:
    from sdft_cli.evaluation.cache import InCache
    from sdft_cli.evaluation.measurement import Measurement

    identity = {"weights": "w", "settings": {}, "grader": "g", "engine": [], "sdft": "1"}
    (tmp_path / "file").write_text("")
    InCache(tmp_path / "file" / "cache", "unit", identity).keep(Measurement())
    assert "not kept for later" in capsys.readouterr().err


# --- terminals -----------------------------------------------------------------------------------------------------


def command(*words: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "sdft_cli", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_an_ascii_terminal_gets_ascii(world: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    process = command("compare", f"{world}/run", f"{world}/run", **plain, TERM="dumb", COLUMNS="20")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert out.decode("ascii") and b"Traceback" not in err


def test_output_that_nobody_reads_ends_a_command_quietly() -> None:
    process = command("methods")
    assert process.stdout and process.stderr
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=100) == 141 and err == b""


def test_a_full_disk_behind_stdout_is_one_line(sdft, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code, _, err = sdft("methods")
    assert code == 1 and err.startswith("error: ") and "no space left" in err and "Traceback" not in err


def test_notes_that_nobody_reads_do_not_end_a_command(sdft, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as broken, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", broken)
        assert sdft("train", "--tasks", "nothing")[0] == 2


def test_an_error_that_nobody_foresaw_says_where_to_send_it(sdft, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdft_cli.config.recipe import METHODS

    monkeypatch.setattr(METHODS, "names", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError) as raised:
        sdft("methods")
    assert "Please report it" in raised.value.__notes__[-1] and raised.value.__context__ is None
