"""`sdft grade`: completions made elsewhere, scored by the task's own grader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdft_cli.commands.grade import grade
from sdft_cli.data import dataset
from sdft_cli.errors import UsageError
from sdft_cli.grading import task_rules
from sdft_cli.stats import intervals
from sdft_cli.stats.pass_at_k import pass_at
from sdft_cli.types import Example, Prepared, PrepareOptions

CALL = {"Action": "search", "Action_Input": '{"q": "cats"}'}
NESTED = {"Action": "update", "Action_Input": '{"user": {"name": "Ann"}}'}
RIGHT, WRONG = task_rules.render_calls([CALL]), "Action: find\nAction Input: {}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four test rows of tool use; by the official rule, the last one's gold text is wrong."""
    prompt = [{"role": "user", "content": "?"}]
    answers = [[CALL], [CALL], [CALL], [NESTED]]
    examples = [Example(f"t{k}", prompt, "x", answer=answer) for k, answer in enumerate(answers)]
    prepared = Prepared({"train": examples, "validation": examples, "test": examples})
    dataset.write_dataset(tmp_path / "data" / "tooluse", "tooluse", prepared, PrepareOptions(), {})
    return tmp_path / "data"


def written(tmp_path: Path, *pairs: tuple[str, str]) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"id": i, "completion": text, "model": "x"}) + "\n" for i, text in pairs))
    return path


def test_every_completion_gets_a_value_an_extract_and_a_reason(data, tmp_path):
    nested = task_rules.render_calls([NESTED])
    report = grade("tooluse", written(tmp_path, ("t1", RIGHT), ("t0", WRONG), ("t3", nested)), data)
    assert [(item["id"], item["value"], item["extra"]["strict"]) for item in report["items"]] == [
        ("t1", 1.0, 1.0),
        ("t0", 0.0, 0.0),
        ("t3", 0.0, 1.0),
    ]
    assert report["items"][1]["extracted"] == "find {}" and "expected search" in report["items"][1]["why"]
    totals = report["totals"]
    assert (totals["completions"], totals["ids"], totals["n"], totals["missing"]) == (3, 3, 3, ["t2"])
    assert totals["accuracy"] == pytest.approx(1 / 3) and totals["interval"] == intervals.wilson(1, 3)
    assert totals["if_missing_were_wrong"] == 0.25 and totals["extra"] == {"strict": pytest.approx(2 / 3)}
    assert totals["pass_at"] is None


def test_exact_completions_are_counted_by_question(data, tmp_path):
    report = grade("tooluse", written(tmp_path, ("t0", "x."), ("t0", "x y"), ("t1", " x ")), data)
    assert [item["exact"] for item in report["items"]] == [True, False, True]
    assert report["totals"]["exact"] == 0.75


def test_several_completions_of_a_question_give_pass_at_k(data, tmp_path):
    pairs = [("t0", text) for text in (RIGHT, WRONG, WRONG, WRONG)] + [("t1", RIGHT), ("t1", WRONG)]
    totals = grade("tooluse", written(tmp_path, *pairs), data)["totals"]
    assert totals["accuracy"] == pytest.approx((1 / 4 + 1 / 2) / 2)  # questions weigh the same
    pass_at_k = totals["pass_at"]
    assert pass_at_k["values"] == {
        "1": pytest.approx(totals["accuracy"]),
        "2": pytest.approx((pass_at(2, 4, 1) + pass_at(2, 2, 1)) / 2),
        "4": 1.0,
    }
    assert pass_at_k["questions"] == {"1": 2, "2": 2, "4": 1}
    low, high = totals["interval"]
    assert 0 <= low <= totals["accuracy"] <= high <= 1


def test_unscored_is_counted_and_not_wrong(data, tmp_path):
    path = data / "tooluse" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "answer": "?"} if row["id"] == "t0" else row) + "\n" for row in rows))
    totals = grade("tooluse", written(tmp_path, ("t0", RIGHT), ("t1", RIGHT)), data)["totals"]
    assert (totals["unscored"], totals["n"], totals["accuracy"]) == (1, 1, 1.0)
    totals = grade("tooluse", written(tmp_path, ("t0", RIGHT)), data)["totals"]
    assert totals["accuracy"] is totals["interval"] is totals["if_missing_were_wrong"] is None


BAD = [
    ('{"id": "t0", "completion": "x"}\n{"id": "t9", "completion": "x"}\n', r"mine.jsonl:2: .*no row 't9'"),
    ('{"id": "t0"}\n', r"mine.jsonl:1: no text 'completion' for 't0'"),
    ('{"id": "t0", "completion": 3}\n', r"mine.jsonl:1: no text 'completion'"),
    ('\n{"completion": "x"}\n', r"mine.jsonl:2: no 'id'"),
    ("[1]\n", r"mine.jsonl:1: no 'id'"),
    ('{"id": "t0", "completion": "x"}\n{"half', r"mine.jsonl:2: broken JSON"),
    ("\n", "holds no completion"),
]


@pytest.mark.parametrize(("text", "says"), BAD)
def test_bad_lines_are_named(data, tmp_path, text, says):
    (tmp_path / "mine.jsonl").write_text(text)
    with pytest.raises(UsageError, match=says):
        grade("tooluse", tmp_path / "mine.jsonl", data)


def test_the_command(sdft, data, tmp_path):
    path = str(written(tmp_path, ("t1", RIGHT), ("t0", WRONG), ("t0", RIGHT)))
    code, out, err = sdft("grade", "tooluse", "--completions", path)
    assert code == 0 and err == ""
    assert '1         t1  strict 1  \'search {"q": "cats"}\'  right' in out
    assert "tooluse: accuracy 0.750" in out and "pass@2 1.000" in out and "2 ids have no completion (t2, t3)" in out
    assert "3 completions of 2 questions, 0 unscored" in out
    code, out, _ = sdft("grade", "tooluse", "--completions", path, "--json")
    assert code == 0 and json.loads(out)["totals"]["ids"] == 2
    for words, says in (
        (["tooluse", "--completions", "nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["nothing", "--completions", path], "unknown task 'nothing'"),
        (["science", "--completions", path], "no dataset at data/science"),
        (["tooluse"], "--completions"),
    ):
        code, out, err = sdft("grade", *words)
        assert code == 2 and out == "" and says in err, words


def test_a_task_from_a_plugin(sdft, data, tmp_path):
    """It is loaded before the name is checked."""
    (tmp_path / "plugin.py").write_text(
        "from sdft_cli.types import Score, Task\n"
        "TASK = Task('graded-by-plugin', 'x', lambda paths, options: None, lambda text, example: Score(1.0))\n"
    )
    (data / "tooluse").rename(data / "graded-by-plugin")
    words = ["grade", "graded-by-plugin", "--completions", str(written(tmp_path, ("t1", WRONG)))]
    assert sdft(*words)[0] == 2
    code, out, _ = sdft(*words, "--plugin", str(tmp_path / "plugin.py"))
    assert code == 0 and "graded-by-plugin: accuracy 1.000" in out
