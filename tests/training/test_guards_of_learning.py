"""Guards that ask whether anything is learned, on made-up histories: what each says, and the runs it leaves alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.trainers import recipe, stage

from sdft_cli.config.recipe import METHODS, build, paths
from sdft_cli.models.batching import Row as TokenRow
from sdft_cli.models.views import VIEWS
from sdft_cli.training.completions import wording
from sdft_cli.training.guards import Guards

Row = dict[str, Any]
SOUND: Row = {"loss": 0.2, "kl": 0.2, "entropy": 0.25, "grad_norm": 0.3, "signal": 1.0, "completion_tokens": 18.0}
SOUND |= {"truncated": 0.0, "repeated": 0.02, "distinct": 1.0, "empty": 0.0}
DEMOS = {"completion_tokens": 15.0, "repeated": 0.0, "distinct": 1.0}
EVERY = 20  # steps between evaluations


def falling(start: float, end: float, steps: int, **row: Any) -> list[Row]:
    """Steps of which KL and loss go from ``start`` to ``end`` by equal factors."""
    values = [start * (end / start) ** (i / (steps - 1)) for i in range(steps)]
    return [{**SOUND, "kl": value, "loss": value, **row} for value in values]


def score(accuracy: float | None, n: int = 64, loss: float | None = None) -> Row:
    of = {} if loss is None else {"loss": {"value": loss, "tokens": 99, "rows": 9, "left_out": 0}}
    return {"accuracy": accuracy, "n": n, **of}


def findings(
    rows: list[Row], scores: list[Row], *, method: str = "sdft", demos: Row = DEMOS, ends: bool = True, **keys: Any
) -> list[tuple[int, str, str, str, str]]:
    """(step, guard, level, text, hint) of a phase; the first score is that of its start, and one follows every 20
    steps, and the last step."""
    changes = {"objective": {"skip_first": 3}} if method in ("sdft", "offline-distill") else {}
    settings = build([METHODS.get(method).defaults(), changes, keys])
    start, *later = scores or [None]
    watch = Guards(settings, demos, steps=len(rows) if ends else None, start=start)  # type: ignore[arg-type]
    found = []
    for step, row in enumerate(rows, 1):
        if later and (step % EVERY == 0 or step == len(rows)):
            watch.evaluated(later.pop(0))  # type: ignore[arg-type]
        found += [(step, f["guard"], f["level"], f["text"], f["hint"]) for f in watch.look(row)]  # type: ignore[arg-type]
    return found


# --- the loss falls, nothing is learned -------------------------------------------------------------------------------


def test_a_kl_that_falls_while_accuracy_stays_is_worth_a_warning() -> None:
    scores = [score(a) for a in (0.03, 0.05, 0.03, 0.06, 0.05)]
    ((step, guard, level, text, hint),) = findings(falling(0.25, 0.01, 80), scores)
    assert (step, guard, level) == (60, "no-progress", "warn")
    assert text.startswith("the KL to the teacher has fallen from 0.25 to 0.025 nats per token, and accuracy on 64 ")
    assert text.endswith("is 0.06, 0.03 at the start") and "guards.no_progress=none" in hint
    assert "`sdft probe`" in hint and "objective.skip_first=0" in hint and "views.teacher" in hint
    keys = re.findall(r"[a-z_]+(?:\.[a-z_]+)+", hint)
    assert set(keys) <= set(paths())
    assert findings(falling(0.25, 0.01, 80), scores, guards={"no_progress": None}) == []


def test_a_short_run_is_judged_by_its_last_evaluation() -> None:
    ((step, guard, *_),) = findings(falling(0.25, 0.02, 40), [score(0.03), score(0.03), score(0.04)])
    assert (step, guard) == (40, "no-progress")
    ((step, *_),) = findings(falling(0.25, 0.02, 15), [score(0.03), score(0.04)])
    assert step == 15
    assert findings(falling(0.25, 0.02, 15), [score(0.03), score(0.04)], ends=False) == []  # more is to come
    assert findings(falling(0.25, 0.02, 8), [score(0.03), score(0.04)]) == []  # too short to say


def test_a_rate_that_moves_nothing_is_worth_a_warning() -> None:
    ((step, guard, _, text, hint),) = findings([SOUND] * 80, [score(0.03)] * 5)
    assert (step, guard) == (60, "no-progress") and "has hardly moved, from 0.2 to 0.2" in text
    assert hint.startswith("raise train.lr;")
    assert findings([SOUND] * 25, [score(0.03)] * 3) == []


def test_given_texts_are_judged_by_their_loss() -> None:
    rows = [{**row, "kl": None} for row in falling(3.0, 0.1, 80)]
    ((_, guard, _, text, hint),) = findings(rows, [score(0.1)] * 5, method="sft")
    assert guard == "no-progress" and text.startswith("the loss has fallen") and "look at the completions" in hint
    by_heart = [score(None, 0, loss) for loss in (2.1, 2.0, 2.2, 2.4, 2.9)]
    (found,) = findings(rows, by_heart, method="sft")
    assert found[0] == 80 and "that on validation rows is 2.90, 2.10 at the start" in found[3]
    assert findings(rows, [score(None, 0, loss) for loss in (2.1, 2.0, 1.9, 1.9, 2.0)], method="sft") == []


FINE: dict[str, tuple[list[Row], list[Row], dict[str, Any]]] = {
    "a task is learned": (falling(0.2, 1e-3, 80), [score(a) for a in (0.02, 0.33, 0.92, 1.0, 1.0)], {}),
    "it is learned late": (falling(0.2, 0.09, 80), [score(a) for a in (0.03, 0.03, 0.05, 0.2, 0.8)], {}),
    "it was known": (falling(0.2, 1e-3, 80), [score(0.95)] * 5, {}),
    "a KL that has not come down far": (falling(0.25, 0.15, 80), [score(0.03)] * 5, {}),
    "better once": (falling(0.25, 0.01, 80), [score(a) for a in (0.2, 0.2, 0.2, 0.4, 0.2)], {}),
    "few rows, which may have improved": (falling(0.25, 0.01, 80), [score(a, 8) for a in (0.25, 0.6, 0.6, 0.6, 1)], {}),
    "never evaluated": (falling(0.25, 0.01, 80), [], {}),
    "no score at the start": (falling(0.25, 0.01, 80), [score(None, 0)] + [score(0.0)] * 4, {}),
    # a student that learns from its own completions may find other words than the demonstrations
    "only a loss, on-policy": (falling(0.25, 0.01, 80), [score(None, 0, loss) for loss in (11, 12, 12, 12, 12)], {}),
    "a policy gradient": (
        [{**row, "kl": None} for row in falling(0.25, 0.01, 80, reward=0.1)], [score(0.1)] * 5, {"method": "grpo"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FINE)
def test_runs_that_learn_are_left_alone(case: str) -> None:
    rows, scores, more = FINE[case]
    assert findings(rows, scores, **more) == []


# --- completions that do not end --------------------------------------------------------------------------------------

LONG = {**SOUND, "completion_tokens": 48.0}


def cut(*shares: float, steps: int = 20) -> list[Row]:
    return [{**LONG, "truncated": share} for share in shares for _ in range(steps)]


def test_a_student_that_does_not_learn_to_end() -> None:
    ((step, guard, level, text, hint),) = findings(cut(0.8, 0.7), [])
    assert (step, guard, level) == (30, "running-on", "warn")
    assert "70 % of completions are cut at the token limit, 80 % at the start" in text
    assert "48.0 tokens, 48.0 at the start and 15.0 in demonstrations" in text
    assert hint.startswith("set objective.skip_first=0, or set views.teacher=demonstration-plain, which does not ask")
    plain = {"views": {"teacher": "demonstration-plain"}}
    (found,) = findings(cut(0.8, 0.7), [], **plain)
    assert "views.teacher" not in found[4]
    (found,) = findings(cut(0.8, 0.7), [], **plain, objective={"skip_first": 0})
    assert found[4].startswith("train for more steps, or raise train.lr;")


def test_a_student_that_unlearns_to_end_is_warned_about_at_once() -> None:
    ((step, guard, *_),) = findings([SOUND] * 15 + cut(0.6), [])
    assert guard == "running-on" and step == 18  # the third of five


def test_a_student_that_ends_as_demonstrations_do_is_left_alone() -> None:
    assert findings(cut(0.8, 0.6, 0.3, 0.1), []) == []  # it learns to
    assert [f[0] for f in findings(cut(0.8, 0.6), [])] == [40]  # and has not learned it in this phase
    assert findings(cut(0.8, 0.8), [], demos={**DEMOS, "completion_tokens": 40.0}) == []  # so do demonstrations
    assert findings(cut(0.8, 0.8), [], demos={}) == []
    assert findings(cut(0.4, 0.4), []) == []


def test_a_limit_that_demonstrations_keep_is_not_too_low() -> None:
    ((step, guard, level, text, hint),) = findings(cut(1.0, 1.0), [])
    assert (step, guard, level) == (30, "running-on", "warn")
    assert "15.0 in demonstrations" in text and "max_new_tokens" not in hint and "skip_first=0" in hint
    unended = [{**row, "runs_past": "<|im_end|>"} for row in cut(1.0, 1.0)]
    assert [f[:2] for f in findings(unended, [])] == [(10, "truncation")]  # nothing stops it
    assert [f[1:3] for f in findings([SOUND] * 15 + cut(1.0), [])] == [("truncation", "warn"), ("truncation", "stop")]


def test_views_know_whether_they_ask_to_think() -> None:
    asking = {name for name, view in VIEWS.items() if view.asks_to_think}
    assert {"demonstration", "demonstration-official", "context", "sibling-as-demonstration"} <= asking
    assert not {"prompt", "demonstration-plain", "answer", "reference"} & asking


# --- the teacher's wording --------------------------------------------------------------------------------------------


def test_a_student_that_repeats_the_teachers_instructions() -> None:
    def rows(*shares: float) -> list[Row]:
        looks = [{**SOUND, "leaked": share, "leaked_as": "a classic example of"} for share in shares]
        return [row for look in looks for row in [look] + [SOUND] * 9]

    ((step, guard, level, text, hint),) = findings(rows(0.05, 0.2, 0.7, 0.9), [])
    assert (step, guard, level) == (21, "leaked-wording", "warn")
    assert "70 % of completions repeat the teacher's instructions ('a classic example of'), 5 % at the start" in text
    assert hint.startswith("set views.teacher=demonstration-verbatim or demonstration-turn;")
    (found,) = findings(rows(0.0, 1.0), [], views={"teacher": "demonstration-plain"})
    assert found[4].startswith("set views.teacher=demonstration-verbatim or demonstration-turn;")
    (found,) = findings(rows(0.0, 1.0), [], views={"teacher": "demonstration-verbatim"})
    assert found[4].startswith("set views.teacher=demonstration-turn;")
    assert findings(rows(0.8, 0.9, 1.0), []) == []  # its own way to write


# --- nothing to learn from --------------------------------------------------------------------------------------------


def test_a_teacher_that_never_differs_is_worth_a_warning() -> None:
    rows = [{**SOUND, "kl": 3e-6, "loss": 3e-6, "grad_norm": 1e-5}] * 20
    ((step, guard, level, text, hint),) = findings(rows, [])
    assert (step, guard, level) == (10, "no-difference", "warn") and "(KL 3e-06 nats per token)" in text
    assert hint.startswith("choose another views.teacher")
    assert [f[:2] for f in findings(rows[:3], [])] == [(3, "no-difference")]  # the run is over
    assert findings([SOUND, *rows], []) == []  # it has taught


def test_a_student_that_writes_noise_is_worth_a_warning() -> None:
    noise = [{**SOUND, "entropy": 3.1}] * 12
    ((step, guard, level, text, hint),) = findings(noise, [])
    assert (
        (step, guard, level) == (10, "noisy-samples", "warn")
        and "entropy 3.1 nats per token" in text
        and "teacher's distribution" in text
    )
    assert hint.startswith(
        "see with `sdft probe` how often the sampled teacher is right; where that is rare, set sampler"
    )
    assert "set sampler.temperature=0.5 objective.logits_temperature=0.5;" in hint
    assert findings([{**SOUND, "entropy": 1.2}] * 12, []) == []
    assert findings([SOUND, *noise], []) == []  # it has become so: that is for other guards
    assert (
        findings(noise, [], objective={"logits_temperature": 0.5, "importance_cap": None}) == []
    )  # not what is sampled
    assert findings(noise, [], views={"teacher": "prompt"}) == []  # its teacher is shown nothing more


def test_a_gradient_that_the_importance_cap_removes_is_named() -> None:
    rows = [{**SOUND, "loss": 1e-10, "grad_norm": 1e-10}] * 8
    ((_, guard, _, text, hint),) = findings(rows, [], objective={"importance_cap": 1e-9})
    assert guard == "no-gradient" and "a KL of 0.2 nats per token" in text
    assert hint.startswith("raise objective.importance_cap;")


def test_a_run_of_a_few_steps_without_signal_is_told_at_its_end() -> None:
    silent = {**SOUND, "signal": 0.0, "silent": {"no longer than skip_first": 1.0}}
    ((step, guard, _, _, hint),) = findings([silent] * 3, [])
    assert (step, guard) == (3, "no-signal") and "objective.skip_first=0" in hint
    assert findings([silent] * 3, [], ends=False) == []


def test_repeated_instructions_are_counted_at_looks(tiny_model: Path, micro_data: Path) -> None:
    trainer = stage(tiny_model, micro_data, "sdft")
    trainer.looks = lambda step: step == 0
    assert trainer.step(0)["leaked"] == 0.0 and "leaked" not in trainer.step(1)
    said = ["so this is a classic example for you", "the sky is blue"]
    ids = [trainer.policy.chat.splitter.ids(text) for text in said]
    rows = [TokenRow([1], tokens, [1.0] * len(tokens)) for tokens in ids]
    examples, chat = trainer.batches.examples, trainer.policy.chat
    found = wording(rows, examples, trainer.recipe, chat)
    assert found["leaked"] == 0.5 and "example" in found["leaked_as"]
    assert wording(rows, examples, recipe(tiny_model, "sft"), chat) == {}
