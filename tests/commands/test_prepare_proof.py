"""`prepare` proves the grader: golds whose winnability is known by construction, constant answers, chance."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdft_cli import plugins
from sdft_cli.commands.datasets import print_stats, stats
from sdft_cli.commands.prepare import prepare, print_summaries
from sdft_cli.data import proof
from sdft_cli.data.dataset import read_split
from sdft_cli.data.gold_checks import DEMONSTRATION, GOLD, UNSCORED, answers
from sdft_cli.data.manifest import Grading, read_manifest
from sdft_cli.errors import UsageError
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.named_rules import GRADERS
from sdft_cli.types import Example, Prepared, PrepareOptions, Score, Task

WORDS = "north river silver lamps copper train winter paper orange signal market tower glass engine valley".split()
Row = dict[str, Any]


def question(i: int) -> str:
    """A question that is near no other one."""
    return f"item {i}: {WORDS[i % 15]} {WORDS[i * i % 15]} {WORDS[i // 15 % 15]}?"


def numbered(i: int, **more: Any) -> Row:
    return {"prompt": question(i), "completion": f"Let me see. The answer is {i}.", "answer": str(i), **more}


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def sources(tmp_path: Path, train: list[Row], test: list[Row], **columns: str) -> tuple[Path, list[str]]:
    """A folder with both splits, and the words of a command that prepares it as ``mine``."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "train.jsonl", train)
    write(tmp_path / "in" / "test.jsonl", test)
    (tmp_path / "mine.toml").write_text("".join(f"{key} = '{value}'\n" for key, value in columns.items()))
    words = ["prepare", "--source", f"mine={tmp_path / 'in'}", "--data", str(tmp_path / "data")]
    return tmp_path / "data" / "mine", [*words, *(["--columns", f"mine={tmp_path / 'mine.toml'}"] if columns else [])]


def grading(folder: Path) -> Grading:
    return read_manifest(folder)["grading"]


def lost(folder: Path) -> dict[str, str]:
    """The reasons of the rows that cannot be won, by file and line."""
    return {row["where"].split(" ")[0]: row["reason"] for row in grading(folder)["unwinnable"]["rows"]}


#: Winnable but for two: a gold answer in words is no number, and a demonstration contradicts its gold answer.
TRAIN = [*(numbered(i) for i in range(30)), numbered(30, answer="unclear"), numbered(31, completion="The answer is 7.")]
TEST = [numbered(i) for i in range(40, 60)]


def test_rows_that_cannot_be_won_are_named_counted_and_kept(sdft, tmp_path: Path) -> None:
    folder, words = sources(tmp_path, TRAIN, TEST, grader="number")
    code, out, _ = sdft(*words)
    assert code == 0
    assert "50 of 52 rows can be won" in out
    assert "in/train.jsonl:31 (mine-train-31): its gold answer cannot be scored" in out
    assert "in/train.jsonl:32 (mine-train-32): its demonstration gets no credit" in out
    assert lost(folder) == {"in/train.jsonl:31": UNSCORED, "in/train.jsonl:32": DEMONSTRATION}
    found = grading(folder)
    assert (found["graded"], found["unwinnable"]["count"], found["on_unwinnable"]) == (52, 2, "keep")
    assert found["share"] == pytest.approx(2 / 52)
    assert sum(read_manifest(folder)["rows"].values()) == 52


def test_they_are_left_out_by_option(sdft, tmp_path: Path) -> None:
    folder, words = sources(tmp_path, TRAIN, [*TEST, numbered(70, answer="unclear", completion="70")], grader="number")
    code, out, _ = sdft(*words, "--on-unwinnable", "drop", "--json")
    (summary,) = json.loads(out)["tasks"]
    assert code == 0 and sum(summary["rows"].values()) == 50
    reasons = summary["filtered"]
    assert reasons == {f"cannot be won: {UNSCORED}": 2, f"cannot be won: {DEMONSTRATION}": 1}
    ids = {row.id for split in ("train", "validation", "test") for row in read_split(folder, split)[0]}
    assert not ids & {"mine-train-31", "mine-train-32", "mine-test-21"}
    assert summary["grading"]["unwinnable"]["count"] == 3
    assert summary["grading"]["splits"]["test"]["unwinnable"] == 0


def test_or_are_an_error_that_writes_nothing(sdft, tmp_path: Path) -> None:
    folder, words = sources(tmp_path, TRAIN, TEST, grader="number")
    code, out, err = sdft(*words, "--on-unwinnable", "error")
    assert (code, out) == (2, "")
    assert "2 of 52 rows cannot be won; the first is in/train.jsonl:31 (mine-train-31)" in err
    assert "--on-unwinnable drop" in err and not folder.exists()
    assert sdft(*words, "--on-unwinnable", "maybe")[0] == 2


def test_a_screen_names_a_handful_and_the_manifest_two_hundred(sdft, tmp_path: Path) -> None:
    bad = [numbered(i, completion="The answer is none.") for i in range(100, 350)]
    folder, words = sources(tmp_path, [*(numbered(i) for i in range(30)), *bad], TEST, grader="number")
    code, out, err = sdft(*words)
    assert code == 0, err
    count = grading(folder)["unwinnable"]["count"]
    assert code == 0 and count > 200
    assert out.count("cannot be won: in/") == proof.NAMED
    assert f"and {count - proof.NAMED} more, listed in manifest.json" in out
    assert f"{count} of {grading(folder)['graded']} rows cannot be won: is this the right grader?" in out
    assert len(grading(folder)["unwinnable"]["rows"]) == 200


def test_where_no_row_can_be_won_the_grader_is_refused(sdft, tmp_path: Path) -> None:
    words_only = [numbered(i, answer=f"{WORDS[i % 15]} {WORDS[i // 15]}", completion="so") for i in range(30)]
    folder, words = sources(tmp_path, words_only[:20], words_only[20:], grader="number")
    code, _, err = sdft(*words)
    assert code == 2 and "no credit to the gold of any of 30 rows (in/" in err and "check the task's grader" in err
    assert not folder.exists()


# --- the forms that a rule reads --------------------------------------------------------------------------------------


def spelled(i: int, gold: str | None = None, **more: Any) -> Row:
    gold = gold or str(i)
    return {"prompt": question(i), "completion": f"Well, hm. ANSWER: {gold}", "answer": gold, **more}


def test_an_answer_is_put_into_the_form_that_demonstrations_show(sdft, tmp_path: Path) -> None:
    """The bare answer never matches this pattern, and the test rows have no demonstration."""
    test = [spelled(i, completion=None) for i in range(40, 60)]
    test += [spelled(60, "1,000", completion=None), *(spelled(i, "5", completion=None) for i in range(61, 65))]
    folder, words = sources(tmp_path, [spelled(i) for i in range(30)], test, pattern=r"ANSWER: (\d+)$")
    code, _, err = sdft(*words)
    assert code == 0, err
    assert lost(folder) == {"in/test.jsonl:21": GOLD}
    constant = grading(folder)["splits"]["test"]["constant_answer"]
    assert constant is not None
    assert (constant["answer"], constant["score"]) == ("5", pytest.approx(4 / 25))


def test_without_a_known_form_nothing_is_proven_and_that_is_said(sdft, tmp_path: Path) -> None:
    train, test = ([spelled(i, completion=None) for i in some] for some in (range(30), range(40, 50)))
    folder, words = sources(tmp_path, train, test, pattern=r"ANSWER: (\d+)$")
    code, out, _ = sdft(*words)
    assert code == 0 and "for 40 rows it is not known whether they can be won" in out
    found = grading(folder)
    assert (found["graded"], found["unwinnable"]["count"]) == (0, 0)
    assert found["splits"]["test"]["unproven"] == 10


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    """Registers a plug-in's task that makes these splits and is graded by ``grade``."""

    def register(splits: dict[str, list[Example]], grade: Callable[[str, Example], Score], **more: Any) -> Task:
        made = Task("quiz", "-", lambda *_: Prepared(dict(splits)), grade, needs_source=False, **more)
        monkeypatch.setitem(plugins.TASKS.own, "quiz", made)
        return made

    return register


def quiz(i: int, answer: Any = "yes", demonstration: str | None = None, **meta: Any) -> Example:
    return Example(f"q{i}", [{"role": "user", "content": question(i)}], demonstration, answer=answer, meta=meta)


def proven(tmp_path: Path, **options: Any) -> Grading:
    (summary,) = prepare(["quiz"], {}, tmp_path, PrepareOptions(**options))
    assert summary["grading"] is not None
    return summary["grading"]


def says(text: str, example: Example) -> Score:
    golds = example.answer if isinstance(example.answer, list) else [example.answer]
    return Score(float(any(str(gold) in text for gold in golds)))


def test_a_demonstration_that_is_only_the_gold_answer_counts_once(task, tmp_path: Path) -> None:
    graded = Counter[str]()

    def counting(text: str, example: Example) -> Score:
        graded[example.id] += 1
        return says(text, example)

    rows = [quiz(0, "yes", " yes\n"), quiz(1, "no", "I say no"), quiz(2, "no")]
    made = task({"train": rows}, counting)
    proof.GoldChecks(made, rows)
    assert graded == {"q0": 1, "q1": 2, "q2": 1}


@pytest.mark.parametrize("said", ["", "Let me look."])
def test_of_several_turns_that_call_tools_the_first_is_graded(sdft, tmp_path: Path, said: str) -> None:
    """As in OpenAI's files for fine-tuning: the call, what the tool says, and what is made of it."""

    def row(i: int) -> Row:
        call = {"name": "look", "arguments": json.dumps({"at": question(i)})}
        calls = [{"id": "c", "type": "function", "function": call}]
        turns = [
            {"role": "user", "content": question(i)},
            {"role": "assistant", "content": said or None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c", "content": f"{i}"},
            {"role": "assistant", "content": f"It is {i}."},
        ]
        look = {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}
        return {"messages": turns, "tools": [{"type": "function", "function": look}]}

    folder, words = sources(tmp_path, [row(i) for i in range(20)], [row(i) for i in range(40, 50)])
    assert sdft(*words)[0] == 0
    assert (grading(folder)["graded"], grading(folder)["unwinnable"]["count"]) == (30, 0)


def test_one_of_several_gold_answers_is_enough(task, tmp_path: Path) -> None:
    rows = [quiz(0, ["yes", "sure"], "sure!"), quiz(1, ["no", "nay"], "never")]
    task({"train": rows}, says)
    found = proven(tmp_path)
    assert [(row["where"], row["reason"]) for row in found["unwinnable"]["rows"]] == [("q1", DEMONSTRATION)]


def test_a_list_that_is_compared_as_json_is_one_answer(monkeypatch: pytest.MonkeyPatch, task) -> None:
    rule = Grader("list", "equal lists", "-", gold="json")
    monkeypatch.setitem(GRADERS, "list", rule)
    made = task({}, says, grader={"name": "list"})
    assert answers(made, quiz(0, ["a", "b"])) == ['["a", "b"]', "a\nb"]
    assert answers(replace(made, grader={"name": "exact"}), quiz(0, ["a", "b"])) == ["a", "b"]


def test_partial_credit_is_credit(task, tmp_path: Path) -> None:
    """A demonstration longer than its gold answer gets less than all from an overlap."""
    rows = [quiz(i, "a b", "a b c d") for i in range(3)]
    task({"train": rows}, lambda text, example: Score(len({"a", "b"} & set(text.split())) / len(text.split())))
    assert proven(tmp_path)["unwinnable"]["count"] == 0


def test_rows_that_only_a_judge_grades_are_said_to_be_ungraded(sdft, tmp_path: Path) -> None:
    long = "a text of far more than eight words that nobody would ever repeat"
    rows = [{"question": question(i), "answer": f"{long} {question(i)}"} for i in range(40)]
    folder, words = sources(tmp_path, rows[:25], rows[25:])
    code, out, _ = sdft(*words)
    assert code == 0 and "40 gold answers were not checked: only a judge" in out and "constant answer" not in out
    found = grading(folder)
    assert (found["graded"], found["unwinnable"]["count"], found["share"]) == (0, 0, None)
    assert found["splits"]["test"]["constant_answer"] is None
    code, out, _ = sdft(*words, "--columns", "mine:grader=none")
    assert code == 0 and "40 gold answers were not checked: the task's grader is none" in out


def test_rows_without_a_gold_answer_have_nothing_to_prove(task, tmp_path: Path) -> None:
    task({"train": [quiz(0, None, "text")]}, lambda text, example: Score(None, None, "no gold answer"))
    (summary,) = prepare(["quiz"], {}, tmp_path, PrepareOptions())
    assert summary["grading"] is None and "grading" not in read_manifest(tmp_path / "quiz")
    print_summaries([summary])


# --- a constant answer and chance -------------------------------------------------------------------------------------


def test_labels_have_a_constant_answer_and_chance(sdft, tmp_path: Path) -> None:
    labels = ["refund"] * 6 + ["delivery"] * 3 + ["invoice"] * 2 + ["other"]
    train = [{"prompt": question(i), "answer": labels[i % 12]} for i in range(48)]
    test = [{"prompt": question(i), "answer": labels[i % 12]} for i in range(100, 130)]
    folder, words = sources(tmp_path, train, test)
    code, out, _ = sdft(*words)
    naive = Counter(row["answer"] for row in test).most_common(1)[0]
    assert naive[0] == "refund"
    found = grading(folder)["splits"]["test"]
    assert found["constant_answer"] == {"answer": "refund", "score": pytest.approx(naive[1] / 30)}
    assert found["chance"] == 1 / 4
    assert code == 0 and f"test: the constant answer 'refund' scores {naive[1] / 30:.1%}; chance is 25.0%" in out
    print_stats(stats(folder.parent, ["mine"], None, None))


def test_answers_that_are_no_labels_have_no_chance(sdft, tmp_path: Path) -> None:
    folder, words = sources(tmp_path, [numbered(i) for i in range(30)], TEST)
    assert sdft(*words)[0] == 0
    assert grading(folder)["splits"]["test"]["chance"] is None


def test_a_constant_answer_gets_no_credit_where_it_is_not_scored(task, tmp_path: Path) -> None:
    """A rule that knows only what is equal to the gold answer must not make a constant answer look right."""
    golds = ["a", "a", "a", "b", "c", "d"]
    task(
        {"train": [quiz(9)], "test": [quiz(i, gold) for i, gold in enumerate(golds)]},
        lambda text, example: Score(1.0 if text == example.answer else None),
    )
    found = proven(tmp_path)["splits"]["test"]
    assert found["constant_answer"] == {"answer": "a", "score": 3 / 6}


def test_chance_is_the_mean_over_the_rows_options(task, tmp_path: Path) -> None:
    test = [quiz(0, "A", choices=["x", "y"]), quiz(1, "B", choices=["x", "y", "z", "w"])]
    task({"train": [quiz(2, "A")], "test": test}, says)
    assert proven(tmp_path)["splits"]["test"]["chance"] == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_science_has_four_options_whatever_letters_occur(tmp_path: Path) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": f"{question(i)}\n\nA: 1\nB: 2"}], "answer": "AB"[i % 2]}
        for i in range(30)
    ]
    (summary,) = prepare(
        ["science"], {"science": [write(tmp_path / "s.jsonl", rows)]}, tmp_path / "d", PrepareOptions()
    )
    assert summary["grading"] is not None and summary["grading"]["unwinnable"]["count"] == 0
    assert summary["grading"]["splits"]["test"]["chance"] == 1 / 4


def test_the_gold_of_the_micro_tasks_is_won_in_their_experts_style(tmp_path: Path) -> None:
    summaries = prepare(["micro-science", "micro-almanac"], {}, tmp_path, PrepareOptions())
    science, almanac = (s["grading"] for s in summaries)
    assert science and almanac
    assert (science["unwinnable"]["count"], science["graded"]) == (0, 840)
    test = science["splits"]["test"]
    # a question offers three of six classes, and each class is right equally often
    assert test["chance"] == pytest.approx(1 / 3) and test["constant_answer"]
    assert test["constant_answer"]["score"] == pytest.approx(1 / 6)
    assert almanac["unwinnable"]["count"] == 0


# --- slow rules -------------------------------------------------------------------------------------------------------


def test_a_slow_rule_grades_a_sample_and_says_so(task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "SECONDS", 0.05)
    monkeypatch.setattr(proof, "SAMPLE", 10)

    def slow(text: str, example: Example) -> Score:
        time.sleep(0.002)
        return says(text, example)

    rows = {"train": [quiz(i) for i in range(60)], "test": [quiz(i, "no" if i < 120 else 5) for i in range(60, 140)]}
    task(rows, slow)
    found = proven(tmp_path)
    assert (found["graded"], found["splits"]["train"]["graded"], found["splits"]["test"]["rows"]) == (20, 10, 80)
    assert (
        "the rule is slow: 20 of 140 gold answers were graded, evenly spread over the splits"
        in read_manifest(tmp_path / "quiz")["notes"]
    )
    assert proven(tmp_path, on_unwinnable="drop")["graded"] == 140  # all, or rows would be left in


def test_the_same_rows_give_the_same_manifest(sdft, tmp_path: Path) -> None:
    folder, words = sources(tmp_path, TRAIN, TEST, grader="number")
    assert sdft(*words)[0] == 0
    first = (folder / "manifest.json").read_bytes()
    assert sdft(*words)[0] == 0 and (folder / "manifest.json").read_bytes() == first


def test_dropping_never_empties_a_split(task, tmp_path: Path) -> None:
    rows = {"train": [quiz(i) for i in range(4)], "test": [quiz(4, "no"), quiz(5, "no")]}
    task(rows, lambda text, example: Score(float(text == "yes" and example.answer == "yes")))
    assert proven(tmp_path)["unwinnable"]["count"] == 2
    with pytest.raises(UsageError, match="no row of test can be won"):
        prepare(["quiz"], {}, tmp_path / "other", replace(PrepareOptions(), on_unwinnable="drop"))
    assert not (tmp_path / "other").exists()
