"""A probe's measures on the toy model, against plain loops over `transformers`' own forward pass."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdft_cli.config.recipe import Sampler
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.models import pretrained
from sdft_cli.models.engine import ENGINES
from sdft_cli.models.views import VIEWS
from sdft_cli.training import probe_demonstrations, probe_temperatures, probe_views
from sdft_cli.training.preflight import plan
from sdft_cli.training.probe_subject import Subject
from sdft_cli.training.probe_takeover import continued, take_over

ROWS, NEW_TOKENS = 6, 12


@pytest.fixture(scope="module")
def subject(tiny_model: Path, micro_data: Path) -> Subject:
    sets = ["threads=1", f"sampler.max_new_tokens={NEW_TOKENS}"]
    flags = {"tasks": ["micro-tooluse"], "model": str(tiny_model), "data": str(micro_data)}
    recipe = assemble(None, flags, sets)
    policy = pretrained.load(str(tiny_model), recipe.runtime)
    (stage,) = plan(recipe, policy.chat)
    return Subject(recipe, policy, ENGINES.get("transformers")(policy, recipe.engine), None, stage, ROWS)


@pytest.fixture(scope="module")
def student(subject: Subject) -> probe_views.Student:
    prompts = [row.prompt for row in subject.rows]
    greedy = subject.sample(prompts, greedy=True)
    records = subject.grade([row.example for row in subject.rows], greedy)
    sampled = subject.sample(prompts)
    sampled[1] = replace(sampled[1], ids=sampled[1].ids[:2], logprobs=sampled[1].logprobs[:2], finish="stop")
    return probe_views.Student(records, sampled)


@pytest.fixture(scope="module")
def views(subject: Subject, student: probe_views.Student) -> list[probe_views.MeasuredView]:
    found = probe_views.candidates(subject, "demonstration", only_own=False)
    return probe_views.measure_views(subject, found, student)


@torch.no_grad()
def log_probs(subject: Subject, prompt: list[int], ids: list[int]) -> torch.Tensor:
    """Of the whole vocabulary, [n, V], at every token of ``ids``."""
    logits = subject.policy.model(torch.tensor([prompt + ids])).logits[0]
    return logits[len(prompt) - 1 : -1].double().log_softmax(-1)


@torch.no_grad()
def greedily(subject: Subject, ids: list[int], new_tokens: int) -> list[int]:
    """The likeliest token, one forward pass each."""
    written: list[int] = []
    while len(written) < new_tokens and not (written and written[-1] in subject.policy.stop_ids):
        written.append(int(subject.policy.model(torch.tensor([ids + written])).logits[0, -1].argmax()))
    return written


def test_the_teacher_takes_over_behind_the_students_tokens(subject: Subject, student, views) -> None:
    own = views[0]
    rollouts, over = continued(subject, own, student.sampled, 3, ROWS)
    assert over == 1 and rollouts[1] is student.sampled[1]  # it had ended: nothing is left to take over
    for i, rollout in enumerate(rollouts):
        if i != 1:
            begun = student.sampled[i].ids[:3]
            prompt = subject.policy.chat.prompt_ids(VIEWS["demonstration"](subject.rows[i].example))
            assert rollout.ids == begun + greedily(subject, prompt + begun, NEW_TOKENS - 3)
            assert len(rollout.ids) <= NEW_TOKENS == len(rollout.logprobs) or rollout.finish == "stop"


def test_points_of_a_takeover_begin_with_the_teacher_alone(subject: Subject, student, views) -> None:
    takeover = take_over(subject, views[0], student.sampled)
    assert takeover is not None and [point["tokens"] for point in takeover["points"]] == [0, 1, 3, 8]
    first, *later = takeover["points"]
    assert first["accuracy"] == views[0].probe["teacher"]["accuracy"] and first["change"] is None
    assert [point["over"] for point in later] == [0, 1, 1] and all(point["change"]["n"] == ROWS for point in later)


def claimed(view: probe_views.MeasuredView, value: float | None) -> probe_views.MeasuredView:
    """The view as if its teacher's greedy completions were all graded so: an untrained model is never right."""
    records = [{**record, "value": value} for record in view.records]
    return view._replace(records=records, probe={**view.probe, "sampled": None})


def test_the_teacher_is_sampled_at_its_own_temperature_and_at_lower_ones(subject: Subject, student, views) -> None:
    own = claimed(views[0], 1.0)
    probe_temperatures.measure(subject, [own], student, only_own=False)
    found = own.probe["sampled"]
    assert found is not None and found["greedy"] == 1.0
    assert found["keys"] == ["sampler.temperature", "objective.logits_temperature"]
    assert [point["temperature"] for point in found["points"]] == [1.0, 0.7, 0.5, 0.3]
    examples = [row.example for row in subject.rows]
    for point in found["points"]:
        sampler = Sampler(temperature=point["temperature"])
        drawn = subject.engine.sample(own.candidate.prompts, sampler, NEW_TOKENS, subject.seed)
        texts = [subject.policy.chat.decode(rollout.ids) for rollout in drawn]
        grades = [subject.stage.task.grade(*each).value for each in zip(texts, examples, strict=True)]
        assert point["accuracy"] == pytest.approx(sum(grades) / ROWS)
        assert point["ended"] == sum(rollout.finish == "stop" for rollout in drawn) / ROWS
        assert point["clean"] <= min(point["accuracy"], point["ended"])
    assert probe_temperatures.follow(subject, own, student, only_own=False) == found  # there is nothing left to try
    alone = claimed(views[0], 1.0)
    probe_temperatures.measure(subject, [alone], student, only_own=True)
    assert alone.probe["sampled"]["points"] == found["points"][:1]


def test_views_are_sampled_together_until_one_teacher_keeps_enough(subject: Subject, student, views) -> None:
    """A teacher that is never right greedily has nothing to keep; the one that was chosen is then tried on."""
    some, other, unscored = claimed(views[0], 1.0), claimed(views[1], 0.0), claimed(views[2], None)
    probe_temperatures.measure(subject, [some, other, unscored], student, only_own=False)
    assert [len(view.probe["sampled"]["points"]) for view in (some, other)] == [1, 1]
    assert unscored.probe["sampled"] is None
    assert probe_temperatures.follow(subject, unscored, student, only_own=False) is None
    followed = probe_temperatures.follow(subject, some, student, only_own=False)
    assert followed is not None and [p["temperature"] for p in followed["points"]] == [1.0, 0.7, 0.5, 0.3]
    assert probe_temperatures.follow(subject, other, student, only_own=False) == other.probe["sampled"]


def test_sampled_completions_that_nothing_scores_do_not_count_as_wrong(
    subject: Subject, student, views, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a judge gives no grade."""
    own, begun = claimed(views[0], 1.0), claimed(views[0], 1.0)
    probe_temperatures.measure(subject, [begun], student, only_own=True)
    grade = Subject.grade
    monkeypatch.setattr(Subject, "grade", lambda *given: [{**each, "value": None} for each in grade(*given)])
    probe_temperatures.measure(subject, [own], student, only_own=False)
    assert own.probe["sampled"] is None
    followed = probe_temperatures.follow(subject, begun, student, only_own=False)
    assert followed is not None and len(followed["points"]) == 1


@pytest.mark.parametrize(
    ("method", "want"),
    [
        ("sdft", ["sampler.temperature", "objective.logits_temperature"]),
        ("opsd", ["sampler.temperature", "objective.logits_temperature"]),
        ("offline-distill", ["sampler.temperature", "objective.logits_temperature"]),
        ("sft-from-teacher", ["sampler.temperature"]),
        ("sft", []),
        ("grpo", []),
        ("reinvoke", []),
    ],
)
def test_the_keys_of_the_temperature_that_a_teacher_is_learned_at(method: str, want: list[str]) -> None:
    recipe = assemble(None, {"tasks": ["micro-tooluse"], "method": method}, [])
    assert probe_temperatures.keys(recipe) == want


def test_losses_equal_plain_log_probs(subject: Subject) -> None:
    greedy = subject.sample([row.prompt for row in subject.rows], greedy=True)
    surprise, lengths = probe_demonstrations.measure(subject, greedy)
    losses: dict[str, list[torch.Tensor]] = {"demonstrations": [], "own": []}
    for row, rollout in zip(subject.rows, greedy, strict=True):
        ids, _ = subject.policy.chat.completion(row.example)
        for name, written in (("demonstrations", ids), ("own", rollout.ids)):
            chosen = log_probs(subject, row.prompt, written).gather(1, torch.tensor(written)[:, None])
            losses[name].append(-chosen[:, 0])
    for name, found in losses.items():
        assert surprise[name]["value"] == pytest.approx(torch.cat(found).mean().item(), rel=1e-4)
        low, high = surprise[name]["interval"]
        assert low <= surprise[name]["value"] <= high
    assert lengths["tokens"]["max"] == max(map(len, losses["demonstrations"])) and lengths["ended"] is None


def test_the_divergence_of_a_view_by_position(subject: Subject, student, views) -> None:
    for view in views:
        rows = []
        for i, teacher in zip(view.candidate.at, view.candidate.prompts, strict=True):
            ids = student.sampled[i].ids
            t, s = log_probs(subject, teacher, ids), log_probs(subject, subject.rows[i].prompt, ids)
            rows.append((t.exp() * (t - s)).sum(-1))
        total = sum(kl_n.sum() for kl_n in rows).item()
        for k, share in view.probe["first"].items():
            assert share == pytest.approx(sum(kl_n[: int(k)].sum() for kl_n in rows).item() / total, rel=1e-3)
        assert view.probe["kl"]["forward"]["value"] == pytest.approx(total / sum(map(len, rows)), rel=1e-3)


def test_every_view_that_the_rows_can_show_is_measured_once(subject: Subject, views) -> None:
    names = [view.probe["view"] for view in views]
    assert names[0] == "demonstration"
    assert set(names[1:]) == {
        *("demonstration-official", "demonstration-plain", "demonstration-system", "reference"),
        *("demonstration-turn", "demonstration-verbatim"),
        *("answer", "answer-as-demonstration"),
    }  # without an article, context+demonstration is the demonstration, and the context shows nothing
    shows = {view.probe["view"] for view in views if view.probe["demonstrates"]}
    assert shows == set(names) - {"answer", "answer-as-demonstration"}
    assert [view.probe["clean_gain"] is None for view in views] == [True, *[False] * (len(names) - 1)]


def test_clean_is_right_and_ended_and_in_words_of_its_own(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four completions, one of each kind, by an engine that writes what it is told."""
    rows = subject.rows[:4]
    good = [subject.policy.chat.completion(row.example)[0] for row in rows]
    leaky = subject.policy.chat.tokenizer("example response", add_special_tokens=False)["input_ids"]
    texts = [good[0], good[1][:-1], leaky + good[2], [*leaky, subject.policy.chat.end_id]]
    finishes = ["stop", "length", "stop", "stop"]
    small = replace(subject, limit=4)
    monkeypatch.setattr(small, "rows", rows, raising=False)
    none = [{"id": row.example.id, "value": 0.0, "completion": ""} for row in rows]
    sampled = subject.sample([row.prompt for row in rows])
    replies = [replace(r, ids=ids, finish=f) for r, ids, f in zip(sampled, texts, finishes, strict=True)]
    monkeypatch.setattr(Subject, "sample", lambda *_, **__: replies)
    candidates = probe_views.candidates(small, "demonstration", only_own=True)
    (view,) = probe_views.measure_views(small, candidates, probe_views.Student(none, sampled))
    assert [record["value"] for record in view.records] == [1.0, 1.0, 1.0, 0.0]
    assert view.probe["lengths"]["ended"] == 0.75 and view.probe["leakage"]["share"] == 0.5
    assert view.probe["clean"]["value"] == 0.25 and view.probe["clean"]["n"] == 4
