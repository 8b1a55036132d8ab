"""``objective.skip_first=auto``: what is measured before the first step, and what follows from it."""

import math
from pathlib import Path

import pytest
import torch
from support.same_runs import assert_same
from support.trainers import make, recipe, stage
from torch.nn import functional

from sdft_cli.commands.dry_run import dry_run
from sdft_cli.commands.train import train
from sdft_cli.config.recipe import Recipe
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.errors import UsageError
from sdft_cli.models.batching import Row
from sdft_cli.runs.metrics import MetricsLog
from sdft_cli.runs.records import StepRow
from sdft_cli.runs.results import load_run
from sdft_cli.training import first_tokens
from sdft_cli.training.display import TrainingDisplay
from sdft_cli.training.recipe_checks import check_recipe


def kl(first: float, rest: float, tokens: int, count: int = 16) -> list[torch.Tensor]:
    """Completions with so many nats at each of the first 3 tokens, and at each of the others."""
    return [torch.tensor([first] * min(3, tokens) + [rest] * max(0, tokens - 3)) for _ in range(count)]


#: KL at every token, mean length of demonstrations -> the number, and words of the reason.
# fmt: off
CASES = {
    "a short answer whose start carries a fifth": (kl(0.9, 0.3, 36), 36.0, 0, "21 % of the KL to the teacher"),
    "a short answer that the model does not end yet": (kl(0.9, 0.3, 200), 10.0, 0, "answers of 10 tokens"),
    "a short answer whose start is known": (kl(0.02, 0.3, 14), 14.0, 3, "2 % of the KL to the teacher"),
    "the micro world": (kl(1e-4, 0.2, 14), 14.0, 3, "hardly differs at the first 3 tokens"),
    "a long answer with words about the example": (kl(4.0, 0.15, 200), 200.0, 3, "29 % of the KL"),
    "a long answer that is decided at once": (kl(6.0, 0.05, 200), 200.0, 0, "65 % of the KL"),
    "long demonstrations, short completions": (kl(0.5, 0.2, 12), 300.0, 0, "answers of 12 tokens"),
    "no demonstrations": (kl(0.5, 0.2, 12), None, 0, "answers of 12 tokens"),
    "two tokens each": (kl(0.0, 0.0, 2), 100.0, 0, "100 % of completions have no token after the first 3"),
    "a letter as the answer": (kl(0.3, 0.3, 80), 2.0, 0, "100 % of the KL"),
    "some end at once": (kl(0.0, 0.5, 60, 14) + kl(0.0, 0.0, 1, 2), 60.0, 0, "12 % of completions have no token after"),
    "a broken model": (kl(math.nan, 0.3, 9), 9.0, 3, "no completion could be measured"),
    "one token for ever": (kl(-1e-19, -1e-19, 12), 12.0, 3, "hardly differs at the first 3 tokens (0 nats"),
    "nothing to measure": ([], 10.0, 3, "no completion could be measured"),
}
# fmt: on


@pytest.mark.parametrize("case", CASES)
def test_what_auto_comes_to(case: str) -> None:
    rows, demonstration, number, words = CASES[case]
    facts = first_tokens.choose(rows, demonstration)
    assert facts["skip_first"] == number and words in facts["why"]
    assert first_tokens.in_words(facts, "second_phase.").startswith(f"second_phase.objective.skip_first: {number}, bec")


def test_how_far_completions_are_sampled() -> None:
    assert first_tokens.longest(1024, 10.0, False) == 16 and first_tokens.longest(1024, 100.5, False) == 101
    assert first_tokens.longest(8, 10.0, False) == 8 and first_tokens.longest(1024, 4000.0, False) == 1024
    assert first_tokens.longest(1024, 10.0, True) == 1024 and first_tokens.longest(1024, None, False) == 1024


def test_a_thought_is_no_first_token() -> None:
    rows = [Row([1], [5, 6, 9, 7, 8], [0.1] * 5, [1]), Row([1], [5], [0.0], [1]), Row([1], [5, 6], [0.2, 0.0], [1])]
    kept = first_tokens.answers(rows, lambda ids: ids.index(9) + 1 if 9 in ids else 0)
    assert [row.weights for row in kept] == [[0, 0, 0, 1, 1], [1, 0]]


@pytest.mark.parametrize("method", ["sdft", "offline-distill"])
def test_it_is_measured_on_what_the_phase_trains_on(tiny_model: Path, micro_data: Path, method: str) -> None:
    """Against plain forward passes over the trial's rows, one by one."""
    trainer = stage(tiny_model, micro_data, method)
    facts, model = trainer.chosen, trainer.policy.model
    assert facts is not None and facts["rows"] == 16
    assert trainer.recipe.objective.skip_first == facts["skip_first"] == trainer.batches.recipe.objective.skip_first
    trainer.batches.settle(0)
    first, within, found = [], round(facts["demonstration_tokens"] or 0) + 1, []
    for row in trainer.batches.trial(16, 8).rows:
        logprobs = []
        for prompt in (row.teacher_prompt or [], row.student_prompt):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + row.completion])).logits[0, len(prompt) - 1 : -1]
            logprobs.append(functional.log_softmax(logits, -1))
        each = (logprobs[0].exp() * (logprobs[0] - logprobs[1])).sum(-1)[:within]
        first.append(each[:3]), found.append(each)
    assert facts["share"] == pytest.approx(float(torch.cat(first).sum() / torch.cat(found).sum()), rel=1e-3)
    assert facts["kl"] == pytest.approx(float(torch.cat(first).mean()), rel=1e-3)
    assert trainer.batches.recipe.sampler.source == ("student" if method == "sdft" else "teacher")


def test_a_run_is_the_one_with_the_number_that_it_came_to(tiny_model: Path, micro_data: Path) -> None:
    """Measuring disturbs neither weights nor any random draw: every step is equal to the bit."""
    auto = stage(tiny_model, micro_data, "sdft")
    given = stage(tiny_model, micro_data, "sdft", f"skip_first={auto.recipe.objective.skip_first}")
    assert auto.chosen is not None and given.chosen is None
    for step in range(4):
        mine, theirs = auto.step(step), given.step(step)
        assert all(mine[key] == theirs[key] for key in ("loss", "kl", "grad_norm", "entropy", "signal"))
    for ours, other in zip(auto.policy.model.parameters(), given.policy.model.parameters(), strict=True):
        assert torch.equal(ours, other)


def test_a_pass_that_runs_out_of_memory_is_made_row_by_row(
    tiny_model: Path, micro_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, real, asked = stage(tiny_model, micro_data, "sdft").chosen, first_tokens.kl_by_row, []

    def tight(rows: list[Row], sides: object, objective: object, tokens: int, layout: object) -> list[torch.Tensor]:
        asked.append(tokens)
        if tokens > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(rows, sides, objective, tokens, layout)  # type: ignore[arg-type]

    monkeypatch.setattr(first_tokens, "kl_by_row", tight)
    alone = stage(tiny_model, micro_data, "sdft").chosen
    assert asked[-1] == 1 and whole is not None and alone is not None
    assert alone["share"] == pytest.approx(whole["share"], rel=1e-3)


def test_grades_need_no_number_of_first_tokens(tiny_model: Path, micro_data: Path) -> None:
    """A method with several completions of a prompt is measured on as many completions in all."""
    trainer = make(tiny_model, micro_data, "sdpo", "skip_first=auto")
    assert trainer.chosen is not None and trainer.chosen["rows"] <= 16
    assert trainer.recipe.objective.skip_first == trainer.chosen["skip_first"]


def test_auto_needs_a_teacher() -> None:
    for method in ("sft", "grpo"):
        with pytest.raises(UsageError, match=rf"skip_first=auto measures the KL .* method {method} asks none"):
            check_recipe(recipe(Path("micro"), method, "skip_first=auto"))


@pytest.mark.parametrize("value", ["-1", "many", "1.5", "true", "none"])
def test_a_wrong_number_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match=r"skip_first: must be a number of tokens from 0, or 'auto'"):
        recipe(Path("micro"), "sdft", f"skip_first={value}")


# --- in a run ---------------------------------------------------------------------------------------------------------

QUICK = ["batch=4", "max_steps=6", "checkpoint_every=2", "eval_every=0", "evaluation.limit=1", "lr=1e-4", "threads=1"]
QUICK += ["sampler.max_new_tokens=8", "evaluation.max_new_tokens=1", "warmup_steps=0"]


class Interrupted(TrainingDisplay):
    """A run that dies without warning once it has shown step ``at``; ``said`` has its notes."""

    def __init__(self, at: int = 0):
        super().__init__(quiet=True)
        self.at, self.said = at, []  # type: int, list[str]

    def note(self, text: str) -> None:
        self.said.append(text)

    def step(self, row: StepRow) -> None:
        if row["step"] == self.at:
            raise KeyboardInterrupt


def in_run(model: Path, data: Path, method: str, *sets: str) -> Recipe:
    flags = {"method": method, "model": str(model), "tasks": ["micro-tooluse"], "data": str(data), "suite": None}
    return assemble(None, flags, [*QUICK, *sets])


def test_a_resumed_run_takes_the_number_that_was_logged(
    tiny_model: Path, micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, display = in_run(tiny_model, micro_data, "sdft"), Interrupted()
    train(recipe, tmp_path / "whole", display)
    (facts,) = MetricsLog(tmp_path / "whole" / "metrics.jsonl").read().skips
    (said,) = (line for line in display.said if "skip_first" in line)
    assert said == f"objective.skip_first: {facts['skip_first']}, because {facts['why']}"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", Interrupted(5))
    # the weights are others by now
    monkeypatch.setattr(first_tokens, "choose", lambda *_: pytest.fail("measured again"))
    train(recipe, tmp_path / "cut", TrainingDisplay(quiet=True), resume=True)
    assert_same(tmp_path / "cut", tmp_path / "whole", ("micro-tooluse",))


def test_a_second_phase_has_its_own_number(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    sets = ["second_phase.sampler.n=1", "second_phase.sampler.max_new_tokens=8", "second_phase.train.max_steps=2"]
    sets += ["second_phase.objective.skip_first=auto", "max_steps=2", "suite=micro"]
    recipe = in_run(tiny_model, micro_data, "reinvoke", *sets)
    train(recipe.model_copy(update={"suite": "micro"}), tmp_path / "run", display := Interrupted())
    (row,) = MetricsLog(tmp_path / "run" / "metrics.jsonl").read().skips
    assert (row["phase"], row["step"]) == (1, 2)
    assert any(line.startswith("second_phase.objective.skip_first: ") for line in display.said)
    assert load_run(tmp_path / "run").recipe["second_phase"]["objective"]["skip_first"] == row["skip_first"]


def test_a_dry_run_says_that_it_will_be_measured(tiny_model: Path, micro_data: Path) -> None:
    assert "skip_first: auto, 3 or 0; how much of" in dry_run(in_run(tiny_model, micro_data, "sdft")).text
    assert "skip_first" not in dry_run(in_run(tiny_model, micro_data, "sdft", "skip_first=3")).text
