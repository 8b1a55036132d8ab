"""One limit of new tokens for training samples and for evaluations, with a run and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdft_cli import plugins
from sdft_cli.commands.train import train
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.data.completion_limits import DemonstratedLimit
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import comparable
from sdft_cli.evaluation.evaluator import Evaluator
from sdft_cli.evaluation.plan import EvalPlan
from sdft_cli.evaluation.request import EvalRequest
from sdft_cli.evaluation.target import Target
from sdft_cli.models import pretrained
from sdft_cli.training.display import TrainingDisplay
from sdft_cli.training.preflight import StagePlan, plan
from tests.rows.test_splits import labelled
from tests.rows.test_user_rows import make

QUICK = ("max_steps=1", "batch=2", "eval_every=0", "checkpoint_every=0", "evaluation.limit=4", "threads=1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 rows with eight labels, as task ``mine``."""
    folder = tmp_path_factory.mktemp("rows")
    make(folder, labelled(80))
    return folder / "data"


def recipe(model: Path, data: Path, *sets: str, method: str = "sdft", task: str = "mine"):
    flags = {"method": method, "model": str(model), "tasks": [task], "data": str(data), "suite": None}
    return assemble(None, flags, list(sets))


def stage(model: Path, data: Path, *sets: str, **more: str) -> StagePlan:
    (planned,) = plan(recipe(model, data, *sets, **more), pretrained.load_chat(str(model)))
    return planned


def test_samples_and_evaluations_have_the_same_limit_and_it_is_said(tiny_model: Path, data: Path) -> None:
    suggested = DemonstratedLimit(data / "mine", pretrained.load_chat(str(tiny_model))).limit
    for method in ("sdft", "sft", "offline-distill"):
        planned = stage(tiny_model, data, method=method)
        assert planned.max_new_tokens == planned.task.max_new_tokens == suggested.tokens
        assert [note for note in planned.notes if "completions of up to" in note] == [
            f"mine: completions of up to {suggested.tokens} tokens: {suggested.why}"
        ]


def test_a_number_is_taken_as_it_is_and_evaluations_that_would_cut_it_are_said(tiny_model: Path, data: Path) -> None:
    planned = stage(tiny_model, data, "sampler.max_new_tokens=200")
    assert planned.max_new_tokens == 200 > planned.task.max_new_tokens  # methods without a sampler need the same test
    assert any("training samples have up to 200 tokens" in note for note in planned.notes)
    both = stage(tiny_model, data, "sampler.max_new_tokens=200", "evaluation.max_new_tokens=200")
    assert not any("training samples" in note or "completions of up to" in note for note in both.notes)


def test_auto_is_for_every_task_and_only_for_those_with_demonstrations(
    tiny_model: Path, data: Path, micro_data: Path
) -> None:
    own = stage(tiny_model, micro_data, task="micro-tooluse")
    assert own.max_new_tokens == own.task.max_new_tokens == plugins.TASKS.get("micro-tooluse").max_new_tokens == 32
    asked = stage(tiny_model, micro_data, "sampler.max_new_tokens=auto", task="micro-tooluse")
    suggested = DemonstratedLimit(micro_data / "micro-tooluse", pretrained.load_chat(str(tiny_model))).limit.tokens
    assert (asked.max_new_tokens, asked.task.max_new_tokens) == (suggested, 32)
    with pytest.raises(UsageError, match="raw text has none"):
        stage(tiny_model, data, "sampler.max_new_tokens=auto", method="cpt")
    with pytest.raises(UsageError, match="a number of tokens from 1, or 'auto'"):
        recipe(tiny_model, data, "evaluation.max_new_tokens=many")


def test_sft_counts_its_longest_demonstration(tiny_model: Path, data: Path) -> None:
    few = stage(tiny_model, data, "evaluation.max_new_tokens=2", "sampler.max_new_tokens=2", method="sft")
    chat = pretrained.load_chat(str(tiny_model))
    assert few.max_new_tokens == max(len(chat.completion(row)[0]) for row in few.train) > 2


def test_a_run_and_its_model_alone_are_scored_alike(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    run = train(recipe(tiny_model, data, *QUICK), tmp_path / "run", TrainingDisplay(quiet=True))
    recorded = [json.loads(f.read_text())["settings"] for f in sorted(run.folder.glob("evals/*/scores.json"))]
    final = run.checkpoints.of(run.stages()[0]).finished()
    assert final is not None
    request = EvalRequest(Target.named(str(final.model)), tasks=("mine",), data=data, limit=4, cache=False)
    alone = EvalPlan(request)
    settings = Evaluator(alone).accuracy(alone.units[0]).settings
    suggested = DemonstratedLimit(data / "mine", pretrained.load_chat(str(tiny_model))).limit.tokens
    assert settings["mine"]["max_new_tokens"] == suggested
    assert comparable.differences([("base", recorded[0]), ("stage", recorded[1]), ("model", settings)]) == []
    notes = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert any(f"up to {suggested} tokens" in row.get("text", "") for row in notes if row["kind"] == "note")
