"""The shipped base is what the README says: it knows the prior skills, no new task, and learns in context."""

from pathlib import Path

import pytest

from sdft_cli import plugins
from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import Evaluation, Runtime, Sampler
from sdft_cli.data import dataset
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.evaluation import answers, scoring, summaries
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.models import pretrained
from sdft_cli.models.policy import Policy

TASKS = ("micro-tooluse", "micro-science", "micro-medical")


@pytest.fixture(scope="module")
def base() -> Policy:
    return pretrained.load(locate("micro"), Runtime(dtype="float32", device="cpu"))


def accuracy(base: Policy, data: Path, name: str, view: str, n: int, sampler: Sampler | None = None) -> float:
    task = plugins.TASKS.get(name)
    rows = dataset.read_split(data / name, "test")[0][:n]
    conditions = Conditions(view, max_new_tokens=24, sampler=sampler)
    records = answers.answer(TransformersEngine(base), base.chat, task, rows, conditions)
    return summaries.summarize(records)["accuracy"]


def test_it_knows_the_prior_skills(base: Policy) -> None:
    suite = plugins.SUITES.get("micro")
    summary, _ = scoring.score_suite(TransformersEngine(base), base.chat, suite, "prompt", Evaluation(limit=30))
    assert summary["accuracy"] > 0.95
    assert all(part["accuracy"] > 0.85 for part in summary["parts"].values()), summary["parts"]


@pytest.mark.parametrize("name", TASKS)
def test_shown_a_demonstration_it_answers_and_without_one_it_cannot(base: Policy, micro_data: Path, name: str) -> None:
    assert accuracy(base, micro_data, name, "demonstration", 60) >= 0.98
    alone = accuracy(base, micro_data, name, "prompt", 60, Sampler(temperature=1.0))
    # one of three classes is right by chance: science is where reward methods have something to climb from
    assert 0.2 <= alone <= 0.6 if name == "micro-science" else alone <= 0.15
