"""Tasks that nothing scores: said before the first step, refused where a sweep or a setting could not be decided."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from support.open_dataset import bare, open_dataset
from support.run_folder import add_losses, make_run, unscore, write_json

from sdft_cli import plugins
from sdft_cli.commands.evaluate import add_metrics
from sdft_cli.commands.sweep import sweep
from sdft_cli.commands.train import train
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.config.sweep_grid import SweepArguments
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.measurement import EvalScores
from sdft_cli.runs import results
from sdft_cli.runs.folder import Run
from sdft_cli.runs.parallel_runs import Job
from sdft_cli.stats import selection
from sdft_cli.stats.selection import LossCandidate, pick_by_loss
from sdft_cli.training.display import TrainingDisplay
from sdft_cli.types import Score

A, OPEN = "micro-tooluse", "support"
WHY = "an open answer needs a judge"


@pytest.fixture
def data(micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The micro tasks, to which a test adds its own; in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(micro_data, tmp_path / "data"))


# --- sweeps -----------------------------------------------------------------------------------------------------------


class Trainer:
    """Stands in for `parallel_runs.train_all`: writes finished runs, unscored on the open task, with the lowest loss at
    the middle rate. Points whose name has ``scored`` in it have an accuracy all the same, those with ``lossless`` no
    loss."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.scored: str | None = None
        self.lossless: str | None = None

    def __call__(self, jobs: list[Job], at_once: int, quiet: bool, keep_going: bool) -> dict[str, str]:
        for job in jobs:
            self.trained.append(job.label)
            recipe = (job.folder / "recipe.json").read_text()
            rates = ([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]], [0.9] * 3)
            make_run(job.folder, rates=rates, stages=(A, OPEN), seed=len(self.trained))
            if not (self.scored and self.scored in job.label):
                unscore(job.folder, OPEN)
            final = {"lr=1e-05": 2.0, "lr=0.0001": 1.0, "lr=0.001": 1.5}
            for task in (A, OPEN) if not (self.lossless and self.lossless in job.label) else ():
                value = next(loss for key, loss in final.items() if key + "-" in job.label)
                add_losses(job.folder, task, [3.0, value, value])
            (job.folder / "recipe.json").write_text(recipe)
            write_json(job.folder / "done.json", {})
        return {}


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, data: Path) -> Trainer:
    stand_in = Trainer()
    monkeypatch.setattr("sdft_cli.commands.sweep.train_all", stand_in)
    return stand_in


def asked(*grid: str) -> SweepArguments:
    flags = {"tasks": [A, OPEN], "model": "micro", "suite": "micro", "data": "data"}
    return SweepArguments(None, flags, ["eval_limit=60"], [], list(grid), [0], False)


RATES = "lr=1e-5,1e-4,1e-3"


def test_the_lowest_loss_is_picked_and_of_equals_the_lowest_rate() -> None:
    at = [LossCandidate(0.5, 1e-4), LossCandidate(0.4, 1e-3), LossCandidate(0.4, 1e-5), LossCandidate(0.9, 1e-6)]
    assert pick_by_loss(at) == 2 and pick_by_loss(at[:2]) == 1 and pick_by_loss(at[:1]) == 0


def test_a_sweep_with_an_unscored_task_chooses_by_loss_and_says_so_first(
    trainer: Trainer, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_dataset(data)
    record = sweep(asked(RATES), tmp_path / "out")
    printed = capsys.readouterr()
    assert f"choosing by validation loss ({OPEN} cannot be scored: {WHY}" in printed.err
    assert record["criterion"] == "loss" and record["rule"] == selection.RULE_BY_LOSS
    assert record["chosen"]["sdft"]["settings"] == {"train.lr": 1e-4}
    assert record["chosen"]["sdft"]["validation"] is None and record["chosen"]["sdft"]["validation_loss"] == 1.0
    assert "chosen for sdft: lr=0.0001, validation loss 1.000 nats per token" in printed.out
    losses = {row["settings"]["train.lr"]: row["result"]["validation_loss"] for row in record["points"]}
    assert losses == {1e-5: 2.0, 1e-4: 1.0, 1e-3: 1.5}
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["criterion"] == "loss"
    assert "valid loss" in (tmp_path / "out" / "sweep.md").read_text()
    again = sweep(None, tmp_path / "out", resume=True, quiet=True)
    assert again["chosen"] == record["chosen"] and len(trainer.trained) == 3


def test_points_are_compared_by_one_thing_even_if_some_have_both(trainer: Trainer, data: Path, tmp_path: Path) -> None:
    """The highest rate alone has accuracies, which say nothing of the others."""
    open_dataset(data)
    trainer.scored = "lr=0.001-"
    record = sweep(asked(RATES), tmp_path / "out", quiet=True)
    assert record["criterion"] == "loss" and record["chosen"]["sdft"]["settings"] == {"train.lr": 1e-4}
    trainer.scored, trainer.lossless = "lr=", "lr="
    record = sweep(asked(RATES), tmp_path / "all", quiet=True)
    assert record["criterion"] == "accuracy" and record["chosen"]["sdft"]["best"]["standard_error"] is not None


def test_a_point_that_lacks_what_the_others_are_compared_by_has_failed(
    trainer: Trainer, data: Path, tmp_path: Path
) -> None:
    open_dataset(data)
    trainer.lossless = "lr=0.0001-"
    record = sweep(asked(RATES), tmp_path / "out", quiet=True)
    assert list(record["failed"]) == ["sdft-lr=0.0001-seed=0"] and "a loss" in record["failed"]["sdft-lr=0.0001-seed=0"]
    assert record["chosen"]["sdft"]["settings"] == {"train.lr": 1e-3}


def test_a_sweep_that_nothing_could_decide_is_refused_before_the_first_step(
    trainer: Trainer, data: Path, tmp_path: Path
) -> None:
    open_dataset(data, change=bare)
    with pytest.raises(UsageError, match=f"{OPEN} cannot be scored: .*neither demonstrations nor gold") as caught:
        sweep(asked(RATES), tmp_path / "out", quiet=True)
    assert "--judge" in caught.value.hint and not trainer.trained and not (tmp_path / "out").exists()


def test_every_task_needs_a_loss_where_one_cannot_be_scored(trainer: Trainer, data: Path, tmp_path: Path) -> None:
    open_dataset(data)
    path = data / A / "validation.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if k != "demonstration"} | {"answer": {"calls": [1]}} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    with pytest.raises(UsageError, match=f"the validation rows of {A} have neither"):
        sweep(asked(RATES), tmp_path / "out", quiet=True)


# --- training ---------------------------------------------------------------------------------------------------------


def recipe(model: Path, *sets: str):
    flags = {"tasks": [OPEN], "method": "sft", "model": str(model), "data": "data"}
    few = ["max_steps=4", "batch=4", "eval_every=1", "eval_limit=6", "evaluation.limit=6", "threads=1", "lr=1e-2"]
    return assemble(None, flags, [*few, "evaluation.max_new_tokens=4", "guards.enabled=false", *sets])


def test_a_run_with_an_unscored_task_has_its_loss(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    open_dataset(data)
    train(recipe(tiny_model, "best=use"), tmp_path / "run", TrainingDisplay(quiet=True))
    notes = Run.open(tmp_path / "run").metrics.notes()
    assert any(f"{OPEN} cannot be scored: {WHY}" in n and "loss of its demonstrations is measured" in n for n in notes)
    assert any("the best step is the one with the lowest validation loss" in note for note in notes)
    run = results.load_run(tmp_path / "run")
    losses = {row["step"]: row["scores"][OPEN]["loss"]["value"] for row in run.evals}
    assert list(losses) == [0, 1, 2, 3, 4] and all(row["scores"][OPEN]["accuracy"] is None for row in run.evals)
    [ending] = run.endings
    assert ending["model_of"] == min((1, 2, 3, 4), key=lambda step: losses[step])
    before, after = run.losses[OPEN]
    assert before["split"] == "test" and before["rows"] == 6 and after["value"] < before["value"]
    assert run.unscored.keys() == {OPEN}


def test_gold_answers_stand_in_for_demonstrations(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    def without(split: str, row: dict) -> dict:
        return row if split == "train" else {k: v for k, v in row.items() if k != "demonstration"}

    open_dataset(data, change=without)
    train(recipe(tiny_model, "max_steps=1"), tmp_path / "run", TrainingDisplay(quiet=True))
    assert {loss["of"] for loss in results.load_run(tmp_path / "run").losses[OPEN]} == {"answers"}


def test_best_use_without_anything_to_choose_by_is_refused(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    open_dataset(data, change=bare)
    with pytest.raises(UsageError, match=f"train.best=use: {OPEN} cannot be scored") as caught:
        train(recipe(tiny_model, "best=use"), tmp_path / "run", TrainingDisplay(quiet=True))
    assert "--judge" in caught.value.hint and not (tmp_path / "run").exists()


def test_dry_run_says_it_too(sdft, data: Path, tiny_model: Path) -> None:
    open_dataset(data)
    code, out, err = sdft("train", "--dry-run", "--tasks", OPEN, "--model", str(tiny_model), "--data", str(data))
    assert code == 0 and f"{OPEN} cannot be scored: {WHY}" in out + err


def test_a_method_that_learns_from_grades_is_refused_where_nothing_grades(tiny_model: Path, data: Path) -> None:
    open_dataset(data)
    flags = {"tasks": [OPEN], "method": "grpo", "model": str(tiny_model), "data": "data"}
    graded = assemble(None, flags, ["threads=1"])
    with pytest.raises(UsageError, match=f"grpo learns from grades, and none of {OPEN}'s training rows has one"):
        train(graded, Path("run"), TrainingDisplay(quiet=True))


def test_a_floor_under_a_suite_that_nothing_scores_is_refused(monkeypatch, tiny_model: Path, data: Path) -> None:
    open_dataset(data)
    suite = plugins.SUITES.get("micro")
    silent = replace(suite, name="silent", grade=lambda completion, example: Score(None, None, "unscored: never"))
    monkeypatch.setitem(plugins.SUITES.own, "silent", silent)
    floor = recipe(tiny_model, "stop_if_prior_drops=0.1").model_copy(update={"suite": "silent"})
    with pytest.raises(UsageError, match="stop_if_prior_drops watches the suite silent, which cannot be scored: never"):
        train(floor, Path("run"), TrainingDisplay(quiet=True))


# --- gates ------------------------------------------------------------------------------------------------------------


def test_a_gate_on_a_task_that_nothing_scores_is_refused_before_a_model_is_loaded(sdft, data: Path) -> None:
    open_dataset(data)
    words = ["--tasks", OPEN, "--data", str(data), "--min-accuracy", f"{OPEN}=0.5", "--out", "out"]
    code, out, err = sdft("eval", "micro", *words)
    assert code == 2 and not out and f"{OPEN} cannot be scored: {WHY}" in err and "--judge" in err
    assert not Path("out").exists()


def test_eval_shows_the_loss_of_a_task_beside_its_accuracy(
    tiny_model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sdft_cli.commands.evaluate import evaluate
    from sdft_cli.evaluation.printing import print_scores
    from sdft_cli.evaluation.request import EvalRequest
    from sdft_cli.evaluation.target import Target

    open_dataset(data)
    request = EvalRequest(Target.named(str(tiny_model)), tasks=(A, OPEN), data=data, limit=3, max_new_tokens=4)
    scores = evaluate(request).scores
    assert scores["tasks"][A]["loss"]["rows"] == scores["tasks"][OPEN]["loss"]["rows"] == 3
    assert scores["tasks"][OPEN]["accuracy"] is None
    assert evaluate(request).scores == scores  # as it is kept
    print_scores(scores)
    printed = capsys.readouterr().out
    assert "not scored (3 rows)" in printed and printed.count("nats per token, demonstrations of 3 test rows") == 2


def test_eval_says_which_tasks_its_metrics_are_over(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rates=([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]], [0.9] * 3), stages=(A, OPEN))
    whole, scores = results.load_run(run), cast(EvalScores, {})
    add_metrics(scores, whole)
    assert scores["metrics_over"] == [A, OPEN] and "notes" not in scores
    unscore(run, OPEN)
    add_metrics(scores, results.load_run(run))
    assert scores["metrics_over"] == [A] and "metrics are over 1 of 2 tasks" in scores["notes"][0]


@pytest.mark.parametrize("flags", [["--pass-at", "1,4"], ["--also", "ceiling"]], ids=" ".join)
def test_samples_that_nothing_would_score_are_not_drawn(sdft, data: Path, flags: list[str]) -> None:
    open_dataset(data)
    code, out, err = sdft("eval", "micro", "--tasks", OPEN, "--data", str(data), *flags)
    assert code == 2 and not out and f"{OPEN} cannot be scored: {WHY}" in err
