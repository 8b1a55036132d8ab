"""Checkpoints: complete or not at all, in numeric order, pruned, recovered after a kill."""

from pathlib import Path

import pytest

from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import UsageError
from sdft_cli.runs.checkpoints import Checkpoints, StageCheckpoints
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StageId


def fill(text: str):
    def write(model: Path, state: Path) -> None:
        (model / "weights").write_text(text)
        (state / "state.pt").write_text(text)

    return write


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", Recipe(tasks=("a", "b")))


@pytest.fixture
def stage(run: Run) -> StageCheckpoints:
    return run.checkpoints.of(StageId(1, "a"))


def test_latest_follows_the_newest_complete_checkpoint(run: Run, stage: StageCheckpoints) -> None:
    assert run.checkpoints.latest() is None
    for step in (950, 1000):
        stage.write(step, fill(str(step)))
    latest = run.checkpoints.latest()
    assert latest is not None and latest.step == 1000 and (latest.model / "weights").read_text() == "1000"
    assert latest.stage == StageId(1, "a") and stage.at(1000) == latest
    assert [c.step for c in stage.all()] == [950, 1000]  # numbers, not names


def test_pruning_keeps_the_given_models_and_states(run: Run, stage: StageCheckpoints) -> None:
    for step in (10, 20, 30):
        stage.write(step, fill(str(step)))
    (stage.folder / "step-000005.tmp").mkdir()
    stage.prune(models={10}, states={30})
    assert sorted(p.name for p in stage.folder.iterdir()) == ["step-000010", "step-000030"]
    old, new = stage.all()
    assert not old.resumable and new.resumable and (old.model / "weights").read_text() == "10"
    (new.folder / "done.json").unlink()  # somebody has removed the newest: a model alone cannot be resumed from
    with pytest.raises(UsageError, match="missing"):
        run.checkpoints.latest()


def test_a_model_alone_is_no_checkpoint_to_resume_from(run: Run, stage: StageCheckpoints) -> None:
    stage.write(10, fill("ten"))
    stage.write_model(15, lambda folder: (folder / "weights").write_text("fifteen") and None)
    latest = run.checkpoints.latest()
    assert latest is not None and latest.step == 10
    assert [(c.step, c.resumable) for c in stage.all()] == [(10, True), (15, False)]


def test_an_interrupted_write_leaves_the_previous_checkpoint_in_force(run: Run, stage: StageCheckpoints) -> None:
    stage.write(10, fill("ten"))

    def breaks(model: Path, state: Path) -> None:
        (model / "weights").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        stage.write(20, breaks)
    latest = run.checkpoints.latest()
    assert latest is not None and latest.step == 10 and (latest.state / "state.pt").read_text() == "ten"
    stage.write(20, fill("twenty"))
    latest = run.checkpoints.latest()
    assert latest is not None and latest.step == 20 and not list(stage.folder.glob("*.tmp"))


def test_killed_between_the_two_renames_the_old_checkpoint_still_counts(run: Run, stage: StageCheckpoints) -> None:
    done = stage.write(10, fill("ten"))
    done.folder.rename(done.folder.with_name(done.folder.name + ".old"))  # where a kill may leave it
    latest = run.checkpoints.latest()
    assert latest is not None and (latest.model / "weights").read_text() == "ten"
    run.checkpoints.recover()  # a resumed run prunes by number; by then it must have its own again
    assert [c.step for c in stage.all()] == [10] and not list(done.folder.parent.glob("*.old"))


def test_a_finished_stage_keeps_its_model_and_no_state(run: Run, stage: StageCheckpoints) -> None:
    stage.write(40, fill("x"))
    assert stage.finished() is None
    stage.write(40, fill("final"), stage_done=True)
    final = stage.finished()
    assert final is not None and (final.model / "weights").read_text() == "final" and not final.state.exists()
    assert run.checkpoints.of(StageId(2, "b")).finished() is None


def test_all_files_are_as_readable_as_their_siblings(tmp_path: Path) -> None:
    """safetensors writes files for their owner alone, whatever the umask says."""
    import os

    import torch
    from safetensors.torch import save_file

    def fill(model: Path, state: Path) -> None:
        save_file({"a": torch.zeros(2)}, model / "a.safetensors")
        (state / "tool.sh").write_text("")
        (state / "tool.sh").chmod(0o755)

    before = os.umask(0o027)
    try:
        folder = Checkpoints(tmp_path).of(StageId(1, "a")).write(1, fill).folder
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes == {"a.safetensors": 0o640, "done.json": 0o640, "tool.sh": 0o755}


def test_a_checkpoint_that_fails_leaves_its_space(tmp_path: Path) -> None:
    stage = Checkpoints(tmp_path).of(StageId(1, "a"))
    stage.write(1, lambda model, state: None)

    def fill(model: Path, state: Path) -> None:
        (model / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.write(2, fill)
    latest = Checkpoints(tmp_path).latest()
    assert latest and latest.step == 1 and [path.name for path in stage.folder.iterdir()] == ["step-000001"]


@pytest.mark.parametrize(
    "text",
    ["", "\n", "nowhere", "../other", "/etc", "stages/../../up/step-000001", "stages/01-a", "stages/01-a/step-\0"],
)
def test_latest_that_names_no_checkpoint_is_one_line(text: str, run: Run, stage: StageCheckpoints) -> None:
    stage.write(5, fill("5"))
    (run.folder / "latest").write_text(text)
    with pytest.raises(UsageError, match=r"latest: .* is not the name of a checkpoint") as caught:
        run.checkpoints.latest()
    assert "\n" not in caught.value.message and "stages/NN-<task>/step-NNNNNN" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("[]", "Input should be an object"),
        ('{"stage": 1, "task": "a", "step": 5}', "stage_done: Field required"),
        ('{"stage": "1", "task": "a", "step": 5, "stage_done": true}', "stage: Input should be a valid integer"),
        ('{"stage": 1, "task": "a", "step": 5, "stage_done": 1}', "stage_done: Input should be a valid boolean"),
        ('{"stage": 2, "task": "a", "step": 5, "stage_done": true}', "it is of stage 02-a, step 5"),
        ('{"stage": 1, "task": "a", "step": 6, "stage_done": true}', "it is of stage 01-a, step 6"),
    ],
)
def test_a_broken_checkpoint_is_one_line(text: str, says: str, run: Run, stage: StageCheckpoints) -> None:
    checkpoint = stage.write(5, fill("5"))
    (checkpoint.folder / "done.json").write_text(text)
    for read in (run.checkpoints.latest, stage.all, stage.finished, lambda: stage.at(5)):
        with pytest.raises(UsageError) as caught:
            read()
        assert (
            f"done.json: {says}" in caught.value.message and "go on from the checkpoint before it" in caught.value.hint
        )
