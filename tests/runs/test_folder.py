"""Run folders: created and opened, refused, locked, named, changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import UsageError
from sdft_cli.runs.files import write_whole
from sdft_cli.runs.folder import Run, newest
from sdft_cli.runs.records import StageId


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", Recipe(tasks=("a", "b")))


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="already holds"):
        Run.create(tmp_path, Recipe())
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UsageError, match="not a run"):
        Run.open(tmp_path)


def test_a_run_killed_before_it_had_a_recipe_can_be_created_again(run: Run) -> None:
    (run.folder / "recipe.json").rename(run.folder / "recipe.json.tmp")
    assert Run.create(run.folder, Recipe(tasks=("a",))).recipe.tasks == ("a",)


def test_a_run_knows_its_recipe_and_its_stages(run: Run) -> None:
    again = Run.open(run.folder)
    assert again.recipe == run.recipe == Recipe(tasks=("a", "b"))
    assert again.stages() == [StageId(1, "a"), StageId(2, "b")]
    assert not again.done
    run.finish(1.5)
    assert again.done and json.loads((run.folder / "done.json").read_text()) == {"seconds": 1.5}
    run.reopen()
    assert not again.done


def test_a_changed_recipe_is_saved_and_logged(run: Run) -> None:
    longer = run.recipe.model_copy(update={"seed": 7})
    run.change_recipe(longer)
    run.change_recipe(longer)  # nothing has changed: nothing is logged
    (line,) = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"kind": "settings", "stage": 0, "task": "base", "step": 0, "changed": {"seed": [0, 7]}}
    assert Run.open(run.folder).recipe == longer


def test_newest_goes_by_time_not_by_name(tmp_path: Path) -> None:
    for name, age in (("b", 100), ("a", 0)):
        folder = Run.create(tmp_path / name, Recipe()).folder
        for f in folder.iterdir():
            os.utime(f, (1_000_000_000 - age, 1_000_000_000 - age))
    assert newest(tmp_path).name == "a"
    with pytest.raises(UsageError, match="no run"):
        newest(tmp_path / "nowhere")


def test_one_process_at_a_time_trains_a_run(run: Run) -> None:
    """A second process is refused while the first lives, and not after it was killed."""
    code = "import time, pathlib; from sdft_cli.runs.folder import Run"
    code += f"\nwith Run(pathlib.Path({str(run.folder)!r})).locked():"
    code += "\n    print('holds', flush=True); time.sleep(60)"
    before = sorted(run.folder.rglob("*"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "holds\n"
        with pytest.raises(UsageError, match="is being trained by another process"), run.locked():
            pass
        other.kill()
    with run.locked():
        assert sorted(run.folder.rglob("*")) == before


def test_write_whole_replaces(tmp_path: Path) -> None:
    write_whole(tmp_path / "x" / "f", "one")
    write_whole(tmp_path / "x" / "f", "two")
    assert (tmp_path / "x" / "f").read_text() == "two" and len(list((tmp_path / "x").iterdir())) == 1
