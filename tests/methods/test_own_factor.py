"""A method with a token factor of its own is one file: RLRT (arXiv 2605.10781) as a user would add it."""

import copy
import json
from pathlib import Path

import pytest
import torch
from support.trainers import make

from sdft_cli import plugins
from sdft_cli.commands.train import train
from sdft_cli.config.recipe import METHODS
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.errors import UsageError
from sdft_cli.training.display import TrainingDisplay

RLRT = '''\
"""RLRT (arXiv 2605.10781): GRPO that leans away from a teacher which knows the answer, on right completions alone.

A_t = A sg((1 - s) + s clip(p_S(y_t) / p_T(y_t), 1 - e, 1 + e)) where A > 0, else A
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sdft_cli.config.recipe import Clip, Method, Objective, Reward, Sampler, Teacher, Views
from sdft_cli.config.sections import Section
from sdft_cli.losses.factors import Factor, Tokens

if TYPE_CHECKING:
    from torch import Tensor


class Settings(Section):
    """``share`` s of the advantage is weighed by the ratio, cut at 1 - ``clip`` and 1 + ``clip``."""

    share: float = Field(0.5, ge=0, le=1)
    clip: float = Field(0.5, gt=0)


def weigh(tokens: Tokens, settings: Settings) -> Tensor:
    ratio_C = (tokens.logprob_C - tokens.teacher_logprob_C).exp().clamp(1 - settings.clip, 1 + settings.clip)
    weighed_C = (1 - settings.share) + settings.share * ratio_C
    return weighed_C.where(tokens.advantage_C > 0, 1.0)


FACTOR = Factor("reverse_credit", "the advantage of right completions, weighed by p_S / p_T", weigh, Settings,
                needs=("reward", "teacher"))  # fmt: skip

METHOD = Method(
    name="rlrt",
    summary="GRPO that leans away from a teacher which knows the answer, on right completions alone",
    paper="arXiv 2605.10781",
    formula="GRPO with A_t = A ((1-s) + s clip(p_S/p_T, 1-e, 1+e)) where A > 0",
    needs=("prompt", "answer"),
    sampler=Sampler(source="student", n=8),
    views=Views(student="prompt", teacher="answer"),
    teacher=Teacher(start="student", update_rate=0.0),
    reward=Reward(),
    objective=Objective(target="token", factors=("group_advantage", "reverse_credit"), clip=Clip()),
    train={"lr": 1e-6, "batch": 64},
)
'''
VIEW = "views.teacher=answer-as-demonstration"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "rlrt.py"
    path.write_text(RLRT)
    if "rlrt" not in METHODS.names():  # moved into methods/, the same file is found there
        plugins.load_file(path)
    return path


def test_it_trains_at_first_try(tiny_model: Path, micro_data: Path, plugin: Path, tmp_path: Path) -> None:
    flags = {"method": "rlrt", "model": str(tiny_model), "tasks": ["micro-tooluse"], "data": str(micro_data)}
    sets = ["max_steps=2", "batch=8", "n=4", "eval_every=0", "evaluation.limit=2", "sampler.max_new_tokens=8", VIEW]
    run = train(assemble(None, flags, [*sets, "evaluation.max_new_tokens=2"]), tmp_path / "run", TrainingDisplay(True))
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert len([r for r in rows if r["kind"] == "step"]) == 2


def test_its_step_is_its_formula(tiny_model: Path, micro_data: Path, plugin: Path) -> None:
    ours = make(tiny_model, micro_data, "rlrt", VIEW, "objective.factor_settings.reverse_credit.share=0.7")
    plain = copy.deepcopy(ours.policy.model)
    rows = ours.batch(0).rows
    _, means = ours.gradients(rows, 0)

    def picked(prompt: list[int], tokens: list[int]) -> torch.Tensor:
        logits = plain(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]

    losses, factors = [], []
    for row in rows:
        student = picked(row.student_prompt, row.completion)
        ratio = (student - picked(row.teacher_prompt or [], row.completion)).detach().exp().clamp(0.5, 1.5)
        factor = 0.3 + 0.7 * ratio if (row.advantage or 0) > 0 else torch.ones_like(ratio)
        losses.append(-(row.advantage or 0.0) * factor * student)
        factors += factor.tolist() if row.advantage else []
    torch.cat(losses).mean().backward()
    for (name, mine), theirs in zip(ours.policy.model.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None and mine.grad.abs().sum() > 0, name
        torch.testing.assert_close(mine.grad, theirs.grad, atol=2e-5, rtol=2e-3)
    assert means["factors"]["reverse_credit"] == pytest.approx(sum(factors) / len(factors), rel=1e-4)


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["reward=none"], "graded completions"),
        (["teacher=none"], "needs a teacher"),
        (["objective.factor_settings.reverse_credit.power=2"], "'power'"),
        (["objective.factor_settings.reward_credit.share=0.1"], "no such factor"),
        (['factors=["group_advantages"]'], "'group_advantages'"),
    ],
)
def test_the_recipe_is_checked_by_what_the_factor_says(
    tiny_model: Path, micro_data: Path, plugin: Path, tmp_path: Path, sets: list[str], says: str
) -> None:
    flags = {"method": "rlrt", "model": str(tiny_model), "tasks": ["micro-tooluse"], "data": str(micro_data)}
    with pytest.raises(UsageError, match=says):
        train(assemble(None, flags, sets), tmp_path / "run", TrainingDisplay(True))
    assert not (tmp_path / "run").exists()
