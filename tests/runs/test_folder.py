"""Run folders: whole or not at all, numeric order, rewinding."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import UsageError
from sdft_cli.runs.folder import Run, newest, write_whole


def fill(text: str):
    def write(model: Path, state: Path) -> None:
        (model / "weights").write_text(text)
        (state / "state.pt").write_text(text)

    return write


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", Recipe(tasks=("a", "b")))


def test_latest_follows_the_newest_whole_checkpoint(run: Run) -> None:
    assert run.latest() is None
    for step in (950, 1000):
        run.write_checkpoint(1, "a", step, fill(str(step)))
    latest = run.latest()
    assert latest is not None and latest.step == 1000 and (latest.model / "weights").read_text() == "1000"
    assert [c.step for c in run.checkpoints(1, "a")] == [950, 1000]  # numbers, not names


def test_pruning_leaves_the_models_and_the_states_it_is_told_to(run: Run) -> None:
    for step in (10, 20, 30):
        run.write_checkpoint(1, "a", step, fill(str(step)))
    (run.stage_folder(1, "a") / "step-000005.tmp").mkdir()
    run.prune(1, "a", models={10}, states={30})
    assert sorted(p.name for p in run.stage_folder(1, "a").iterdir()) == ["step-000010", "step-000030"]
    old, new = run.checkpoints(1, "a")
    assert not old.resumable and new.resumable and (old.model / "weights").read_text() == "10"
    (new.folder / "done.json").unlink()  # somebody has removed the newest: a model alone cannot be resumed from
    with pytest.raises(UsageError, match="missing"):
        run.latest()


def test_a_model_alone_is_no_checkpoint_to_resume_from(run: Run) -> None:
    run.write_checkpoint(1, "a", 10, fill("ten"))
    run.write_model(1, "a", 15, lambda folder: (folder / "weights").write_text("fifteen") and None)
    latest = run.latest()
    assert latest is not None and latest.step == 10
    assert [(c.step, c.resumable) for c in run.checkpoints(1, "a")] == [(10, True), (15, False)]


def test_an_interrupted_write_leaves_the_previous_checkpoint_in_force(run: Run) -> None:
    run.write_checkpoint(1, "a", 10, fill("ten"))

    def breaks(model: Path, state: Path) -> None:
        (model / "weights").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run.write_checkpoint(1, "a", 20, breaks)
    latest = run.latest()
    assert latest is not None and latest.step == 10 and (latest.state / "state.pt").read_text() == "ten"
    run.write_checkpoint(1, "a", 20, fill("twenty"))
    assert run.latest().step == 20 and not list(run.stage_folder(1, "a").glob("*.tmp"))


def test_killed_between_the_two_renames_the_old_checkpoint_still_counts(run: Run) -> None:
    done = run.write_checkpoint(1, "a", 10, fill("ten"))
    done.folder.rename(done.folder.with_name(done.folder.name + ".old"))  # where a kill may leave it
    latest = run.latest()
    assert latest is not None and (latest.model / "weights").read_text() == "ten"
    run.recover()  # a resumed run prunes by number; by then it must have its own again
    assert [c.step for c in run.checkpoints(1, "a")] == [10] and not list(done.folder.parent.glob("*.old"))


def test_a_finished_stage_keeps_its_model_and_no_state(run: Run) -> None:
    run.write_checkpoint(1, "a", 40, fill("x"))
    assert run.finished(1, "a") is None
    run.write_checkpoint(1, "a", 40, fill("final"), stage_done=True)
    final = run.finished(1, "a")
    assert final is not None and (final.model / "weights").read_text() == "final" and not final.state.exists()
    assert run.finished(2, "b") is None


def test_rewinding_forgets_what_comes_after_and_torn_lines(run: Run) -> None:
    for stage, step in ((1, 1), (1, 2), (2, 1), (2, 2)):
        run.log({"stage": stage, "step": step})
    with (run.folder / "metrics.jsonl").open("a") as f:
        f.write('{"stage": 2, "st')
    run.rewind_metrics(2, 1)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(r["stage"], r["step"]) for r in rows] == [(1, 1), (1, 2), (2, 1)]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="already holds"):
        Run.create(tmp_path, Recipe())
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UsageError, match="not a run"):
        Run.open(tmp_path)


def test_newest_goes_by_time_not_by_name(tmp_path: Path) -> None:
    import os

    for name, age in (("b", 100), ("a", 0)):
        folder = Run.create(tmp_path / name, Recipe()).folder
        for f in folder.iterdir():
            os.utime(f, (1_000_000_000 - age, 1_000_000_000 - age))
    assert newest(tmp_path).name == "a"
    with pytest.raises(UsageError, match="no run"):
        newest(tmp_path / "nowhere")


def test_one_process_at_a_time_trains_a_run(run: Run) -> None:
    """The other is refused while the first lives, and not after it was killed."""
    code = "import time, pathlib; from sdft_cli.runs.folder import Run"
    code += f"\nwith Run(pathlib.Path({str(run.folder)!r})).alone():"
    code += "\n    print('holds', flush=True); time.sleep(60)"
    before = sorted(run.folder.rglob("*"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "holds\n"
        with pytest.raises(UsageError, match="is being trained by another process"), run.alone():
            pass
        other.kill()
    with run.alone():
        assert sorted(run.folder.rglob("*")) == before


def test_write_whole_replaces(tmp_path: Path) -> None:
    write_whole(tmp_path / "x" / "f", "one")
    write_whole(tmp_path / "x" / "f", "two")
    assert (tmp_path / "x" / "f").read_text() == "two" and len(list((tmp_path / "x").iterdir())) == 1
