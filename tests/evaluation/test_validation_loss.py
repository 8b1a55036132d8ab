"""The loss of held-out demonstrations: against log-softmax by hand, one row at a time, and without a trace."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.trainers import recipe, stage

from sdft_cli import plugins
from sdft_cli.data import dataset
from sdft_cli.evaluation import validation_loss
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.evaluation.scorable import gold_text
from sdft_cli.models import pretrained
from sdft_cli.models.policy import Policy
from sdft_cli.types import Example, Score, Task

PLAIN = Conditions("prompt")


def grade(completion: str, example: Example) -> Score:
    return Score(None, None, "unscored: nobody knows")


OPEN = Task("open", "x", lambda paths, options: None, grade)


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return pretrained.load(str(tiny_model), recipe(tiny_model).runtime)


@pytest.fixture(scope="module")
def examples(micro_data: Path) -> list[Example]:
    return dataset.read_split(micro_data / "micro-tooluse", "validation")[0][:9]


def by_hand(policy: Policy, example: Example) -> tuple[float, int]:
    """The negative log-likelihood of the demonstration and its end, from the model's own logits for this row alone."""
    prompt = policy.chat.prompt_ids(example.prompt)
    ids, mask = policy.chat.completion(example)
    with torch.no_grad():
        logits = policy.core(input_ids=torch.tensor([prompt + ids])).logits[0].double()
    log_probs = torch.log_softmax(logits, -1)
    each = [-float(log_probs[len(prompt) + i - 1, token]) for i, token in enumerate(ids) if mask[i]]
    return sum(each), len(each)


def loss_of(policy: Policy, examples: list[Example], budget: int = 4096, task: Task = OPEN) -> dict:
    texts = validation_loss.texts_of(task, {"validation": examples}, policy.chat, PLAIN)
    return validation_loss.measure(policy, texts, budget)


@pytest.mark.parametrize("budget", [1, 60, 4096])
def test_it_is_the_mean_over_tokens_of_log_softmax_by_hand(policy: Policy, examples, budget: int) -> None:
    sums, counts = zip(*(by_hand(policy, example) for example in examples), strict=True)
    loss = loss_of(policy, examples, budget)
    assert loss["value"] == pytest.approx(sum(sums) / sum(counts), rel=1e-5)
    assert (loss["tokens"], loss["rows"], loss["left_out"]) == (sum(counts), 9, 0)
    assert (loss["split"], loss["of"]) == ("validation", "demonstrations")
    low, high = loss["interval"]
    assert low < loss["value"] < high


def test_the_interval_is_over_rows(policy: Policy, examples) -> None:
    """A delta-method interval of a ratio of sums, made by hand, is nearly the bootstrap's."""
    sums, counts = (torch.tensor(x) for x in zip(*(by_hand(policy, e) for e in examples), strict=True))
    value = float(sums.sum() / counts.sum())
    residuals = sums - value * counts
    error = math.sqrt(float((residuals**2).sum())) / float(counts.sum())
    low, high = loss_of(policy, examples)["interval"]
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.3)
    assert "interval" not in loss_of(policy, examples[:1])


def test_several_turns_count_only_what_training_would_train(policy: Policy, examples) -> None:
    turns = [
        {"role": "assistant", "content": "so the answer", "weight": 0},
        {"role": "user", "content": "is that so ?"},
        {"role": "assistant", "content": "yes ."},
    ]
    example = replace(examples[0], demonstration=turns)
    total, count = by_hand(policy, example)
    loss = loss_of(policy, [example])
    assert loss["tokens"] == count < len(policy.chat.completion(example)[0])
    assert loss["value"] == pytest.approx(total / count, rel=1e-5)


def test_gold_answers_stand_in_where_no_row_has_a_demonstration_and_are_not_mixed(policy: Policy, examples) -> None:
    bare = [replace(e, demonstration=None, answer=f"y{i} .") for i, e in enumerate(examples)]
    written = [replace(e, demonstration=e.answer) for e in bare]
    answers = loss_of(policy, bare)
    assert answers["of"] == "answers" and answers["value"] == pytest.approx(loss_of(policy, written)["value"])
    mixed = loss_of(policy, [*bare[:4], *examples[4:]])
    assert (mixed["of"], mixed["rows"], mixed["left_out"]) == ("demonstrations", 5, 4)
    assert mixed["value"] == pytest.approx(loss_of(policy, examples[4:])["value"])
    texts = validation_loss.texts_of(OPEN, {"test": bare, "validation": examples}, policy.chat, PLAIN)
    assert (texts.split, texts.of) == ("validation", "demonstrations")


@pytest.mark.parametrize(
    ("answer", "text"),
    [("Paris", "Paris"), (["Paris", "paris"], "Paris"), (42, "42"), (True, ""), ({"a": 1}, ""), ([], ""), (None, "")],
)
def test_which_gold_answers_are_words(answer, text: str) -> None:
    example = Example("a", [{"role": "user", "content": "x"}], answer=answer)
    assert gold_text(OPEN, example) == text


def test_a_task_writes_its_own_answers(examples) -> None:
    assert gold_text(replace(OPEN, render=lambda answer: f"<{answer}>"), examples[0]) == (f"<{examples[0].answer}>")


def test_rows_without_either_and_rows_that_do_not_fit_are_left_out_and_counted(policy: Policy, examples) -> None:
    empty = replace(examples[0], demonstration=None, answer=None)
    long = replace(examples[1], demonstration="so the answer . " * 200, answer=None)
    assert len(policy.chat.completion(long)[0]) > policy.chat.window
    loss = loss_of(policy, [empty, long, *examples[2:]])
    assert (loss["rows"], loss["left_out"]) == (7, 2)
    assert validation_loss.texts_of(OPEN, {"validation": [empty, long]}, policy.chat, PLAIN) is None


def test_the_limit_counts_rows_as_those_that_are_answered(policy: Policy, examples) -> None:
    texts = validation_loss.texts_of(OPEN, {"test": examples}, policy.chat, Conditions("prompt", limit=4))
    assert len(texts.rows) == 4 and texts.left_out == 0
    assert validation_loss.at_stages(Conditions("prompt")).limit == validation_loss.MOST
    assert validation_loss.at_stages(Conditions("prompt", limit=5)).limit == 5


def test_it_leaves_no_trace(tiny_model: Path, micro_data: Path, examples) -> None:
    """In the middle of training an adapter with dropout: no gradient, nothing drawn, every module in its mode."""
    trainer = stage(tiny_model, micro_data, "sdft", "lora.rank=4", "lora.dropout=0.5")
    trainer.step(0)
    policy = trainer.policy
    policy.train_mode(dropout=True)
    modes = {name: module.training for name, module in policy.model.named_modules()}
    assert any(modes.values())
    weights = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in policy.model.named_parameters()}
    state = torch.random.get_rng_state()
    first, second = (loss_of(policy, examples) for _ in range(2))
    assert first == second  # dropout is off
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {name: module.training for name, module in policy.model.named_modules()} == modes
    for name, parameter in policy.model.named_parameters():
        assert torch.equal(parameter, weights[name])
        grad = gradients[name]
        assert parameter.grad is None if grad is None else torch.equal(parameter.grad, grad)


class Small(Policy):
    """A policy whose device holds no more than ``room`` tokens at once."""

    room = 0

    def hidden_states(self, inputs, model=None):
        if inputs.ids_BL.numel() > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return super().hidden_states(inputs, model)


def test_short_memory_makes_the_batches_smaller(policy: Policy, examples, capsys: pytest.CaptureFixture[str]) -> None:
    small = Small(policy.core, policy.chat, policy.name, policy.device, scoring=policy.scoring)
    small.room = 100
    assert loss_of(small, examples)["value"] == pytest.approx(loss_of(policy, examples)["value"], rel=1e-5)
    small.room = 5
    assert loss_of(small, examples) is None and "does not fit into the memory" in capsys.readouterr().err


def test_every_task_of_the_package_has_it(micro_data: Path, policy: Policy) -> None:
    for name in ("micro-tooluse", "micro-science", "micro-medical"):
        rows = dataset.read_split(micro_data / name, "validation")[0][:3]
        assert loss_of(policy, rows, task=plugins.TASKS.get(name))["rows"] == 3
