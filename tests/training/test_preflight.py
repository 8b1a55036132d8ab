"""What is known before the first step: rows that do not fit or cannot be rendered, warm-up, gold, disk."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sdft_cli import plugins
from sdft_cli.config.recipe import Recipe, build
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.data import dataset
from sdft_cli.data.gold_checks import check_gold
from sdft_cli.errors import UsageError
from sdft_cli.grading import task_rules
from sdft_cli.models import pretrained
from sdft_cli.models.chat import Chat
from sdft_cli.training.idle_settings import without_effect
from sdft_cli.training.optimizer import learning_rate
from sdft_cli.training.preflight import StagePlan, notes_of, plan
from sdft_cli.training.recipe_checks import check_recipe
from sdft_cli.types import Example, Prepared, PrepareOptions, Score, Task

DEMONSTRATION = "it is twelve ."


def row(name: str, words: int = 3, **more: Any) -> Example:
    prompt = [{"role": "user", "content": "a " * words}]
    return Example(name, prompt, **{"demonstration": DEMONSTRATION, "answer": "twelve", **more})


class World(NamedTuple):
    """A task ``sayings`` on disk, and the chat of a model of a given window."""

    data: Path
    chat: Chat
    model: str

    def recipe(self, *sets: str, method: str = "sdft", suite: str | None = None) -> Recipe:
        flags = {"method": method, "model": self.model, "tasks": ["sayings"], "data": str(self.data), "suite": suite}
        return assemble(None, flags, list(sets))

    def stage(self, *sets: str, **more: Any) -> StagePlan:
        (stage,) = plan(self.recipe(*sets, **more), self.chat)
        return stage


Make = Callable[..., World]


@pytest.fixture
def world(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """``world(window, train=…, test=…)``: rows of the task, whose own limit is 1024 tokens."""

    def make(window: int = 512, grade: Callable[[str, Example], Score] | None = None, **splits: list[Example]) -> World:
        rows = {"train": [row(f"t{i}") for i in range(8)], "validation": [row("v")], "test": [row("x")], **splits}

        def prepare(*_: object) -> Prepared:
            return Prepared(rows)

        task = Task("sayings", "-", prepare, grade or (lambda text, e: task_rules.containment(text, e.answer)))
        monkeypatch.setitem(plugins.TASKS.own, "sayings", task)
        dataset.write_dataset(tmp_path / "data" / "sayings", "sayings", prepare(), PrepareOptions(), {})
        chat = pretrained.load_chat(str(tiny_model))
        chat.window = window
        return World(tmp_path / "data", chat, str(tiny_model))

    return make


def tokens(chat: Chat, messages: list[dict[str, str]]) -> int:
    """By the tokenizer itself."""
    text = chat.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return len(chat.tokenizer(text, add_special_tokens=False)["input_ids"])


# --- windows --------------------------------------------------------------------------------------------------------


def test_the_tasks_own_limit_is_lowered_to_what_fits_behind_the_longest_prompt(world: Make) -> None:
    w = world(200, train=[row("short"), row("long", 30)])
    stage = w.stage("views.teacher=prompt")
    longest = tokens(w.chat, row("long", 30).prompt)
    assert stage.max_new_tokens == stage.phases[0].max_new_tokens == 200 - longest
    (note,) = [n for n in stage.notes if "sampler.max_new_tokens" in n]
    assert f"up to {200 - longest} tokens, not 1024" in note and f"{longest} tokens" in note
    shown = w.stage().max_new_tokens  # the teacher's prompt, with the demonstration in it, counts too
    assert shown < 200 - longest


def test_a_limit_that_was_asked_for_is_refused_with_one_that_fits(world: Make) -> None:
    w = world(200)
    with pytest.raises(UsageError) as caught:
        w.stage("sampler.max_new_tokens=190")
    assert "8 bad rows" in caught.value.message and "window of 200" in caught.value.message
    fits = int(caught.value.hint.split("sampler.max_new_tokens to ")[1].split()[0])
    stage = w.stage(f"sampler.max_new_tokens={fits}")
    assert stage.max_new_tokens == fits and not stage.dropped
    with pytest.raises(UsageError):
        w.stage(f"sampler.max_new_tokens={fits + 1}")


def test_a_prompt_that_leaves_less_than_demonstrations_need_is_a_bad_row(world: Make) -> None:
    w = world(200, train=[*(row(f"t{i}") for i in range(8)), row("huge", 185)])
    with pytest.raises(UsageError, match=r"train.jsonl: row huge: prompt over the limit.*\(1 bad rows\)"):
        w.stage("views.teacher=prompt")
    stage = w.stage("views.teacher=prompt", "on_bad_row=drop")
    assert [e.id for e in stage.train] == [f"t{i}" for i in range(8)] and [d.where for d in stage.dropped] == ["huge"]
    assert stage.max_new_tokens == 200 - tokens(w.chat, row("t0").prompt)
    assert any("1 bad rows dropped: 1 x prompt over the limit" in note for note in notes_of([stage]))


@pytest.mark.parametrize("split", ["validation", "test", "ood"])
def test_held_out_rows_fit_too_and_are_not_dropped_unasked(world: Make, split: str) -> None:
    w = world(200, **{split: [row("fine"), row("huge", 300)]})
    with pytest.raises(UsageError, match=rf"{split}.jsonl: row huge: prompt over the limit"):
        w.stage()
    stage = w.stage("on_bad_row=drop")
    kept = {"validation": stage.validation, **stage.tests}[split]
    assert [e.id for e in kept] == ["fine"] and [d.where for d in stage.dropped] == [f"{split}.jsonl: huge"]


def test_an_evaluation_limit_that_was_asked_for_is_refused(world: Make) -> None:
    w = world(200)
    with pytest.raises(UsageError) as caught:
        w.stage("evaluation.max_new_tokens=199")
    assert "row v" in caught.value.message and "evaluation.max_new_tokens" in caught.value.hint


def test_blocks_of_a_corpus_are_lowered_and_those_asked_for_refused(world: Make) -> None:
    corpus = [Example(f"c{i}", [], text="a b c " * 40) for i in range(3)]
    w = world(64, corpus=corpus)
    stage = w.stage(method="cpt")
    assert stage.max_new_tokens == 63 and max(len(e.meta["ids"]) for e in stage.train) == 63
    assert any("blocks of 63 tokens, not 1024" in note for note in stage.notes)
    with pytest.raises(UsageError) as caught:
        w.stage("sampler.max_new_tokens=64", method="cpt")
    assert "sampler.max_new_tokens to 63" in caught.value.hint


def test_the_prompts_of_a_second_phase_fit_too(world: Make, tmp_path: Path) -> None:
    general = tmp_path / "general.jsonl"
    general.write_text(json.dumps(row("g").to_dict()) + "\n" + json.dumps(row("huge", 300).to_dict()) + "\n")
    w, sets = world(200), [f'general="{general}"', "second_phase.sampler.n=1"]
    with pytest.raises(UsageError, match="second phase: huge"):
        w.stage(*sets, method="reinvoke")
    stage = w.stage(*sets, "on_bad_row=drop", method="reinvoke")
    assert [e.id for e in stage.phases[1].examples] == ["g"] and stage.phases[1].max_new_tokens < 200


def test_a_suite_is_scored_on_what_fits_and_says_so(world: Make) -> None:
    stage = world(48, train=[row("t")]).stage("views.teacher=prompt", suite="micro")
    assert any("suite micro is scored on completions of up to" in note for note in stage.notes)
    with pytest.raises(UsageError, match="suite micro: row micro-"):
        world(17, train=[row("t")]).stage("views.teacher=prompt", suite="micro")


# --- templates --------------------------------------------------------------------------------------------------------

ALTERNATING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_rows_that_the_template_refuses_are_refused_in_one_line(world: Make, split: str) -> None:
    system = replace(row("with-system"), prompt=[{"role": "system", "content": "be brief"}, *row("x").prompt])
    w = world(512, **{split: [row("fine"), system]})
    w.chat.tokenizer.chat_template = ALTERNATING
    w = w._replace(chat=Chat(w.chat.tokenizer, window=512))
    with pytest.raises(UsageError) as caught:
        w.stage()
    assert f"{split}.jsonl" in caught.value.message and "with-system" in caught.value.message
    assert "no system role" in caught.value.message and "\n" not in caught.value.message
    stage = w.stage("on_bad_row=drop")
    assert ["with-system" in d.where for d in stage.dropped] == [True]


def test_a_view_that_needs_a_system_message_is_refused_where_the_template_has_none(world: Make) -> None:
    w = world()
    assert w.stage("views.teacher=demonstration-system").dropped == []
    w.chat.tokenizer.chat_template = ALTERNATING
    w = w._replace(chat=Chat(w.chat.tokenizer, window=512))
    with pytest.raises(UsageError, match="no system role") as caught:
        w.stage("views.teacher=demonstration-system")
    assert "views.teacher=demonstration-system needs: choose another view" in caught.value.hint
    assert "merge-system" not in caught.value.hint and "\n" not in caught.value.message


# --- warm-up --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 19, 20, 200])
def test_a_default_warm_up_leaves_half_of_a_short_stage_at_the_full_rate(steps: int) -> None:
    train = Recipe().train.model_copy(update={"lr": 1.0, "schedule": "constant"})
    rates = [learning_rate(train, step, steps) for step in range(steps)]
    assert sum(rate == 1.0 for rate in rates) >= steps / 2
    ten = train.model_copy(update={"warmup_steps": 10})
    if steps >= 20:
        assert rates == [learning_rate(ten, step, steps) for step in range(steps)]


def test_a_warm_up_as_long_as_the_stage_is_refused_where_it_was_asked_for(world: Make) -> None:
    w = world()  # eight rows
    assert any("warm-up over 2 of 4 steps" in note for note in w.stage("batch=2", "max_steps=4").notes)
    assert not [n for n in w.stage("batch=2", "max_steps=4", "warmup_steps=3").notes if "warm-up" in n]
    with pytest.raises(UsageError) as caught:
        w.stage("batch=2", "max_steps=4", "warmup_steps=4")
    assert "train.warmup_steps=4" in caught.value.message and "2 or less" in caught.value.hint


# --- gold -------------------------------------------------------------------------------------------------------------


def contains(text: str, example: Example) -> Score:
    return Score(float(str(example.answer) in text))


def test_rows_that_their_own_gold_does_not_win_are_counted(world: Make) -> None:
    rows = [row("fine"), row("hopeless", answer="thirteen"), row("bare", demonstration=None)]
    stage = world(grade=lambda text, e: contains(text, e) if e.id != "hopeless" else Score(0.0), test=rows).stage()
    (note,) = [n for n in stage.notes if "cannot be won" in n]
    assert "test.jsonl: 1 of 3 rows cannot be won" in note and "hopeless" in note


def test_a_task_that_cannot_be_won_at_all_is_refused(world: Make) -> None:
    with pytest.raises(UsageError, match=r"no credit to the gold of any of 2 rows \(a\)"):
        world(grade=lambda *_: Score(0.0), test=[row("a"), row("b")]).stage()
    unscored = world(grade=lambda *_: Score(None), test=[row("a"), row("b")]).stage()
    assert not [n for n in unscored.notes if "cannot be won" in n]


def test_a_shipped_grader_is_won_by_its_rendered_answer() -> None:
    science, calls = plugins.TASKS.get("science"), plugins.TASKS.get("tooluse")
    right = [row(str(i), demonstration=None, answer="B") for i in range(3)]
    assert check_gold(science, right, "x") == []
    gold, nested = (
        [{"Action": "f", "Action_Input": "{}"}],
        json.dumps({"a": {"b": "c"}}),
    )  # the authors' rule misreads it
    broken = row("broken", demonstration=None, answer=[{"Action": "f", "Action_Input": nested}])
    rows = [row("fine", demonstration=None, answer=gold), broken]
    assert [line.split(":")[1] for line in check_gold(calls, rows, "x")] == [" 1 of 2 rows cannot be won"]


# --- settings without effect ------------------------------------------------------------------------------------------


def test_settings_that_do_nothing_are_named_and_others_are_not(world: Make) -> None:
    w, keys = world(), ["sampler.temperature", "lora.alpha", "teacher.update_rate", "train.epochs", "train.lr"]
    assert len(without_effect(w.recipe("max_steps=3", method="sft"), keys)) == 4
    assert without_effect(w.recipe("lora.rank=2"), keys) == []
    (line,) = without_effect(w.recipe("max_steps=3"), ["train.epochs"])
    assert line == "train.epochs has no effect here: train.max_steps=3 decides"
    assert without_effect(build([{"guards": {"enabled": False}}]), ["guards.enabled", "guards.window"]) == [
        "guards.window has no effect here: guards.enabled is false"
    ]


# --- the command ------------------------------------------------------------------------------------------------------


def test_dry_run_says_what_was_lowered_and_what_the_disk_has(sdft, world: Make) -> None:
    w = world()
    words = ("train", "--tasks", "sayings", "--model", w.model, "--data", str(w.data), "--dry-run", "--set", "alpha=8")
    plugins.TASKS.own["sayings"] = Task("sayings", "-", lambda *_: Prepared({}), contains)
    code, out, err = sdft(*words)
    assert code == 0 and "note: sayings: completions of up to" in out and "GiB are free" in out
    assert "note: lora.alpha has no effect here: lora.rank is 0" in err
    code, out, err = sdft(*words, "--json")
    facts = json.loads(out)
    assert any("not 1024" in note for note in facts["notes"]) and facts["disk_free_bytes"] > 0


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    sdft, world: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    w = world()
    plugins.TASKS.own["sayings"] = Task("sayings", "-", lambda *_: Prepared({}), contains)
    whole = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: whole._replace(free=1000))
    for more in ((), ("--dry-run",)):
        words = ("--tasks", "sayings", "--model", w.model, "--data", str(w.data), "--out", str(tmp_path / "run"))
        code, _, err = sdft("train", *words, *more, "--set", "keep_checkpoints=3")
        assert code == 2 and "GiB on disk, and 0.00 GiB are free there" in err and "keep_checkpoints" in err
        assert not (tmp_path / "run").exists()


def test_an_attention_that_cannot_be_trained_on_a_cpu_is_refused_before_anything_is_read() -> None:
    recipe = assemble(None, {"tasks": ["micro-tooluse"], "data": "nowhere"}, ["attention=flex_attention", "device=cpu"])
    with pytest.raises(UsageError, match="flex_attention has no backward pass on a CPU") as refused:
        check_recipe(recipe)
    assert refused.value.hint == "set runtime.attention=auto"
