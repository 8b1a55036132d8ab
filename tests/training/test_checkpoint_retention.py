"""Which checkpoints stay, and with which one a stage ends: the rules on marks, and whole runs that obey them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdft_cli.commands.train import train
from sdft_cli.config.recipe import Recipe, build
from sdft_cli.errors import UsageError
from sdft_cli.runs import results
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StageId
from sdft_cli.training.checkpoint_retention import Mark, Rule, best, better
from sdft_cli.training.checkpoint_schedule import Checkpointer
from sdft_cli.training.display import TrainingDisplay

RISES_AND_FALLS = [Mark(25, 0.5, 0.99), Mark(50, 0.9, 0.98), Mark(75, 0.9, 0.95), Mark(100, 0.7, 0.9)]


def test_the_best_is_the_earliest_of_equals() -> None:
    assert best(RISES_AND_FALLS) == RISES_AND_FALLS[1]
    assert best([]) is None and best([Mark(1)]) is None  # nothing measured, nothing best


def test_where_nothing_scores_the_task_the_lowest_loss_is_the_best() -> None:
    falls = [Mark(25, None, 0.9, 2.0), Mark(50, None, 0.9, 0.5), Mark(75, None, 0.9, 0.5), Mark(100, None, 0.9, 0.7)]
    assert best(falls) == falls[1] and better(falls[1], falls[3]) and not better(falls[1], falls[2])
    assert [Rule().worth(m, falls[:i]) for i, m in enumerate(falls)] == [True, True, False, False]
    assert Rule().ending(falls, use_best=True) == falls[1] and Rule().kept(falls) == {50}
    assert falls[1].record() == {"step": 50, "validation": None, "prior": 0.9, "loss": 0.5}


def test_losses_are_never_mixed_with_accuracies() -> None:
    marks = [Mark(25, None, None, 0.1), Mark(50, 0.4, None, 3.0), Mark(75, 0.5, None, 4.0)]
    assert best(marks) == marks[2]
    assert not better(marks[0], marks[1]) and not better(marks[1], marks[0])


def test_worth_is_what_improves_and_with_a_floor_what_holds() -> None:
    worth = [Rule().worth(m, RISES_AND_FALLS[:i]) for i, m in enumerate(RISES_AND_FALLS)]
    assert worth == [True, True, False, False]
    assert not any(Rule(best=False).worth(m, RISES_AND_FALLS[:i]) for i, m in enumerate(RISES_AND_FALLS))
    held = [Rule(best=False, floor=0.95).worth(m, RISES_AND_FALLS[:i]) for i, m in enumerate(RISES_AND_FALLS)]
    assert held == [True, True, True, False]


def test_what_is_kept_and_where_a_stage_ends() -> None:
    assert Rule().kept(RISES_AND_FALLS) == {50}
    assert Rule(floor=0.95).kept(RISES_AND_FALLS) == {50, 75}
    assert Rule(best=False).kept(RISES_AND_FALLS) == set()
    assert Rule(newest=2).resumable([950, 1000, 50]) == {950, 1000}
    assert Rule().ending(RISES_AND_FALLS, use_best=False) == RISES_AND_FALLS[-1]
    assert Rule().ending(RISES_AND_FALLS, use_best=True) == RISES_AND_FALLS[1]
    assert Rule(floor=0.95).ending(RISES_AND_FALLS, use_best=False) == RISES_AND_FALLS[2]
    assert Rule(floor=0.985).ending(RISES_AND_FALLS, use_best=True) == RISES_AND_FALLS[0]
    assert Rule(floor=1.0).ending(RISES_AND_FALLS, use_best=True) is None
    assert not Rule(floor=0.5).holds(Mark(1, 1.0, None))  # a prior that was not measured is not kept


def test_accuracies_by_different_judges_are_not_compared(tmp_path: Path) -> None:
    """After the first step the run was judged by a model (`sdft eval --judge`); what was measured before had none."""
    settings = {"model": "micro", "tasks": ["a"], "judge": {"model": "big"}}
    run = Run.create(tmp_path / "run", build([settings]))
    at = {"stage": 1, "task": "a", "phase": 0, "global_step": 0}
    for step, accuracy in ((1, 0.9), (2, 0.4)):
        scores = {"a": {"accuracy": accuracy, "n": 5}}
        run.metrics.append({"kind": "eval", **at, "step": step, "scores": scores, "suite": None})
        if step == 1:
            changed = {"judge.model": [None, "big"]}
            run.metrics.append({"kind": "settings", "stage": 1, "task": "a", "step": 1, "changed": changed})
    marks = Checkpointer(run, StageId(1, "a"), 0).marks
    assert [mark.validation for mark in marks] == [None, 0.4] and best(marks) == marks[1]


# --- whole runs ------------------------------------------------------------------------------------------------

FEW = {"max_steps": 8, "batch": 8, "warmup_steps": 0, "checkpoint_every": 3, "eval_every": 2, "eval_limit": 8}


def recipe(data: Path, **settings: object) -> Recipe:
    """Eight steps of SFT on the embedded model, at a rate that teaches or at one that wrecks it."""
    return build(
        [
            {"tasks": ["micro-science"], "method": "sft", "model": "micro", "data": str(data), "suite": "micro"},
            {"sampler": {"source": "dataset"}, "objective": {"target": "token"}, "guards": {"enabled": False}},
            {"train": {**FEW, **settings}, "evaluation": {"limit": 4}, "runtime": {"threads": 1}},
        ]
    )


def go(recipe: Recipe, out: Path) -> results.RunResult:
    with TrainingDisplay(quiet=True) as display:
        train(recipe, out, display)
    return results.load_run(out)


def final(run: results.RunResult) -> dict[str, torch.Tensor]:
    last = Run(run.folder).checkpoints.of(StageId(1, "micro-science")).finished()
    assert last is not None
    return load_file(last.model / "model.safetensors")


def evaluated(run: results.RunResult) -> dict[int, tuple[float, float]]:
    """(validation, prior) by step."""
    pairs = {r["step"]: (r["scores"]["micro-science"]["accuracy"], r["suite"]["accuracy"]) for r in run.evals}
    return {step: pair for step, pair in pairs.items() if step}


def folders(run: results.RunResult) -> list[str]:
    return sorted(p.name for p in (run.folder / "stages" / "01-micro-science").iterdir())


def test_a_stage_goes_back_to_the_last_step_that_kept_the_prior_suite(micro_data: Path, tmp_path: Path) -> None:
    plain = go(recipe(micro_data, lr=1.5e-3), tmp_path / "plain")
    priors = {step: prior for step, (_, prior) in evaluated(plain).items()}
    base = plain.evals[0]["suite"]["accuracy"]
    assert priors[2] > priors[8] + 0.5, "the rate is to wreck the prior suite step by step"
    drop = base - (priors[2] + min(priors[4], priors[6], priors[8])) / 2
    watched = go(recipe(micro_data, lr=1.5e-3, stop_if_prior_drops=drop), tmp_path / "watched")
    seen = evaluated(watched)
    assert max(seen) < 8 or seen[8][1] < base - drop  # it ends at the first evaluation below
    last = max(seen)
    assert seen[last][1] < base - drop and all(p >= base - drop for s, (_, p) in seen.items() if s < last)
    (ending,) = watched.endings
    assert (ending["why"], ending["model_of"]) == ("prior dropped", last - 2)
    assert watched.prior is not None and watched.prior[-1] is not None  # measured on the model it went back to
    mine, end = final(watched), final(plain)
    assert any(not torch.equal(mine[n], end[n]) for n in mine)


def test_without_a_step_that_kept_the_prior_suite_it_ends_as_it_began(micro_data: Path, tmp_path: Path) -> None:
    run = go(recipe(micro_data, lr=3e-2, stop_if_prior_drops=0.0), tmp_path / "run")
    (ending,) = run.endings
    assert (ending["why"], ending["model_of"], ending["step"]) == ("prior dropped", 0, 2)
    base = load_file(Path("sdft_cli/micro/model/model.safetensors"))
    mine = final(run)
    assert all(torch.equal(mine[n], base[n].to(mine[n].dtype)) for n in mine)
    assert run.matrix[0] == run.matrix[1]


def test_the_best_step_is_kept_and_can_end_the_stage(micro_data: Path, tmp_path: Path) -> None:
    """The task's answers are guessed right a third of the time at first, and SFT at this rate ends that."""
    settings = {"lr": 1e-3, "max_steps": 12, "eval_limit": 16}
    run = go(recipe(micro_data, **settings, best="use"), tmp_path / "run")
    seen = evaluated(run)
    top = max(seen, key=lambda s: (seen[s][0], -s))
    (ending,) = run.endings
    assert ending["best"]["step"] == top and ending["model_of"] == top
    kept = go(recipe(micro_data, **settings), tmp_path / "keep")
    assert evaluated(kept) == seen and kept.endings[0]["model_of"] == 12
    assert seen[top][0] > seen[12][0] + 0.2, "the rate is to make validation fall"
    assert folders(kept) == [f"step-{top:06d}", "step-000012"]
    there = load_file(kept.folder / "stages" / "01-micro-science" / f"step-{top:06d}" / "model" / "model.safetensors")
    mine = final(run)
    assert all(torch.equal(mine[n], there[n]) for n in mine)


def test_several_checkpoints_can_be_kept_to_resume_from(micro_data: Path, tmp_path: Path) -> None:
    from sdft_cli.training.trainer import PhaseTrainer

    seen: list[list[str]] = []
    stage = tmp_path / "run" / "stages" / "01-micro-science"
    whole = PhaseTrainer.step

    def step(self: PhaseTrainer, number: int) -> dict:
        seen.append(sorted(p.name for p in stage.glob("*") if (p / "state").is_dir()) if stage.is_dir() else [])
        return whole(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhaseTrainer, "step", step)
        go(recipe(micro_data, lr=1e-4, keep_checkpoints=2, checkpoint_every=2, best="off"), tmp_path / "run")
    assert seen[-1] == ["step-000004", "step-000006"]
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["train"]["keep_checkpoints"] == 2


def test_the_prior_suite_is_watched_only_where_it_is_measured(micro_data: Path, tmp_path: Path) -> None:
    blind = recipe(micro_data, stop_if_prior_drops=0.03).model_copy(update={"suite": None})
    with pytest.raises(UsageError, match="prior suite"):
        go(blind, tmp_path / "run")
    assert not (tmp_path / "run").exists()
