"""The grading rules against gold text, against each other, and against completions written to fool them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdft_cli import plugins
from sdft_cli.evaluation import summaries
from sdft_cli.grading import task_rules
from sdft_cli.types import Example

SHARED = Path(__file__).parents[3] / "shared" / "data"
EVAL_68 = SHARED / "sdft_tooluse" / "eval_68.json"


def call(name: str, arguments: dict) -> dict[str, str]:
    return {"Action": name, "Action_Input": json.dumps(arguments)}


ONE = [call("search", {"q": "cats", "page": 1})]
TWO = [call("search", {"q": "cats"}), call("fetch", {"id": 7})]
NESTED = [call("update", {"user": {"name": "Ann"}, "tags": ["a"]})]
CLASH = [call("search", {"color": "wild"}), call("search", {"color": "albino"})]
EMPTY_ARGUMENT = [call("search", {"q": "", "page": 1})]
NO_ARGUMENT = [call("random", {})]
OPTIONAL = [call("login", {"user": "a"}), call("[Optional]update", {"pic": "b"})]


def write(*calls: tuple[str, str]) -> str:
    return "\n".join(f"Action: {name}\nAction Input: {text}" for name, text in calls)


TABLE = [
    # case, completion, gold, official, strict
    ("gold text", task_rules.render_calls(ONE), ONE, 1, 1),
    ("with thoughts", "Thought: look\n" + task_rules.render_calls(ONE) + "\nThought: done", ONE, 1, 1),
    ("keys in another order", write(("search", '{"page": 1, "q": "cats"}')), ONE, 1, 1),
    ("spread over lines", write(("search", '{\n "q": "cats",\n "page": 1\n}')), ONE, 1, 1),
    ("wrong value", write(("search", '{"q": "cats", "page": 2}')), ONE, 0, 0),
    ("number as text", write(("search", '{"q": "cats", "page": "1"}')), ONE, 0, 0),
    ("float for int", write(("search", '{"q": "cats", "page": 1.0}')), ONE, 1, 1),
    ("true for 1: Python's == is fooled", write(("search", '{"q": "cats", "page": true}')), ONE, 1, 0),
    ("extra argument", write(("search", '{"q": "cats", "page": 1, "x": 0}')), ONE, 0, 0),
    ("missing argument", write(("search", '{"q": "cats"}')), ONE, 0, 0),
    ("an empty argument kept", write(("search", '{"q": "", "page": 1}')), EMPTY_ARGUMENT, 1, 1),
    ("an empty argument left out", write(("search", '{"page": 1}')), EMPTY_ARGUMENT, 0, 0),
    ("wrong tool", write(("find", '{"q": "cats", "page": 1}')), ONE, 0, 0),
    ("tool in other case", write(("Search", '{"q": "cats", "page": 1}')), ONE, 0, 0),
    ("called twice", task_rules.render_calls(ONE + ONE), ONE, 0, 0),
    ("an extra call of another tool", task_rules.render_calls([*ONE, call("fetch", {"id": 7})]), ONE, 0, 0),
    ("an extra call without arguments", task_rules.render_calls(ONE) + "\n" + write(("random", "{}")), ONE, 0, 0),
    ("a key twice, the last one right", write(("search", '{"q": "x", "q": "cats", "page": 1}')), ONE, 1, 0),
    ("a key twice, the last one wrong", write(("search", '{"q": "cats", "q": "x", "page": 1}')), ONE, 0, 0),
    ("null for a value", write(("search", '{"q": null, "page": 1}')), ONE, 0, 0),
    ("a list of the right value", write(("search", '{"q": ["cats"], "page": 1}')), ONE, 0, 0),
    ("an empty completion", "", ONE, 0, 0),
    ("prose only", "I would search for cats on page 1.", ONE, 0, 0),
    ("two calls", task_rules.render_calls(TWO), TWO, 1, 1),
    ("two calls, other order", task_rules.render_calls(TWO[::-1]), TWO, 1, 1),
    ("arguments swapped between calls", write(("search", '{"id": 7}'), ("fetch", '{"q": "cats"}')), TWO, 1, 0),
    ("all arguments in the first", write(("search", '{"q": "cats", "id": 7}'), ("fetch", "{}")), TWO, 1, 0),
    ("nested JSON, keys in another order", write(("update", '{"tags": ["a"], "user": {"name": "Ann"}}')), NESTED, 0, 1),
    ("nested JSON, wrong inside", write(("update", '{"user": {"name": "Bob"}, "tags": ["a"]}')), NESTED, 0, 0),
    ("nested JSON, a key twice inside", write(("update", '{"user": {"name": "B", "name": "Ann"}}')), NESTED, 0, 0),
    ("nested gold text is cut at the first }", task_rules.render_calls(NESTED), NESTED, 0, 1),
    ("colliding keys, gold text", task_rules.render_calls(CLASH), CLASH, 1, 1),
    ("colliding keys, 1st wrong", write(("search", '{"color": "x"}'), ("search", '{"color": "albino"}')), CLASH, 1, 0),
    ("broken arguments where none are expected", write(("random", '{"a": }')), NO_ARGUMENT, 1, 0),
    ("no Action Input where none is expected", "Action: random", NO_ARGUMENT, 1, 0),
    ("a mention in prose", "The Action: random\n" + write(("random", "{}")), NO_ARGUMENT, 0, 1),
    ("prose that mentions another Action:", "So Action: search.\n" + write(("random", "{}")), NO_ARGUMENT, 0, 1),
    ("prose that begins with Action:", "Action: I will call it\n" + write(("random", "{}")), NO_ARGUMENT, 0, 0),
    ("input without its action", "Action: random\nAction Input: {}\nAction Input: {}", NO_ARGUMENT, 1, 0),
    ("optional mark, gold text", task_rules.render_calls(OPTIONAL), OPTIONAL, 0, 1),
    ("optional mark left out", write(("login", '{"user": "a"}'), ("update", '{"pic": "b"}')), OPTIONAL, 0, 1),
    ("Action: inside an argument", write(("search", '{"q": "\\nAction: x", "page": 1}')), ONE, 0, 0),
    ("thinking before", f"<think>{write(('find', '{}'))}</think>\n{task_rules.render_calls(ONE)}", ONE, 1, 1),
    ("thinking that never closes", f"<think>{task_rules.render_calls(ONE)}", ONE, 1, 0),
    ("answer in the thinking only", f"<think>{task_rules.render_calls(ONE)}</think> done", ONE, 0, 0),
    ("a list for arguments", write(("search", '["cats", 1]')), ONE, 0, 0),
    ("fenced in Markdown", "Action: search\nAction Input: ```json\n{\"q\": \"cats\", \"page\": 1}\n```", ONE, 0, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("completion", "gold", "official", "strict"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_tooluse_table(completion, gold, official, strict):
    score = task_rules.tooluse(completion, gold)
    assert (score.value, score.extra["strict"]) == (official, strict), score.why
    assert task_rules.tooluse_official(completion, gold).value == official
    assert task_rules.tooluse_strict(completion, gold).value == strict
    assert score.why


@pytest.mark.parametrize(
    "gold", [None, [], "search", {}, [{}], [{"Action": "x", "Action_Input": "{oops"}], [call("", {})]]
)
def test_tooluse_without_gold_is_unscored_not_wrong(gold):
    assert task_rules.tooluse(task_rules.render_calls(ONE), gold).value is None


def test_tooluse_takes_objects_as_gold_inputs():
    gold = [{"Action": "search", "Action_Input": {"q": "cats", "page": 1}}]
    score = task_rules.tooluse(task_rules.render_calls(ONE), gold)
    assert (score.value, score.extra["strict"]) == (1, 1)


def test_tooluse_reports_what_it_read_and_why():
    score = task_rules.tooluse(write(("find", '{"q": "cats"}')), ONE)
    assert score.extracted is not None
    assert "find" in score.extracted
    assert "search" in score.why


def test_official_and_strict_on_verbatim_gold():
    if not EVAL_68.is_file():
        pytest.skip("../shared/data is absent")
    rows = json.loads(EVAL_68.read_text())
    scores = [task_rules.tooluse(task_rules.render_calls(r["golden_answer"]), r["golden_answer"]) for r in rows]
    assert sum(s.value for s in scores) == 66
    assert sum(s.extra["strict"] for s in scores) == 68


def test_an_evaluation_reports_both_rules():
    """The task's grader through the summary that `sdft eval` prints: the strict score beside the official one."""
    if not EVAL_68.is_file():
        pytest.skip("../shared/data is absent")
    task = plugins.TASKS.get("tooluse")
    records = []
    for i, row in enumerate(json.loads(EVAL_68.read_text())):
        example = Example(f"r{i}", [{"role": "user", "content": "?"}], answer=row["golden_answer"])
        score = task.grade(task_rules.render_calls(row["golden_answer"]), example)
        records.append({"id": example.id, "value": score.value, "extra": score.extra, "tokens": 1})
    summary = summaries.summarize(records, task.note)
    assert (summary["correct"], summary["n"], summary["extra"]) == (66, 68, {"strict": 1.0})
    assert "strict" in summary["note"]


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("<reasoning>\nx\n</reasoning>\n<answer>\nB\n</answer>", 1),
        ("<answer>B</answer>", 1),
        ("<answer>\nB", 1),  # cut off after the letter: read to the end, as in the authors' code
        ("<answer>A</answer> no, <answer>B</answer>", 1),
        ("<answer>B</answer> no, <answer>A</answer>", 0),
        ("<think><answer>A</answer></think><answer>B</answer>", 1),
        ("<think>perhaps <answer>B</answer>", 0),
        ("<answer>b</answer>", 0),
        ("<answer>B.</answer>", 0),
        ("<answer>B: 18</answer>", 0),
        ("<answer>A B C D</answer>", 0),
        ("<answer></answer>", 0),
        ("the answer is B", 0),
        ("B", 0),
        ("", 0),
    ],
)
def test_science(completion, value):
    assert task_rules.science(completion, "B").value == value
    assert task_rules.science(completion, None).value is None


@pytest.mark.parametrize(
    ("completion", "gold", "value"),
    [
        ("This is Rheumatic  Fever, most likely.", "rheumatic fever", 1),
        ("It is rheumatic-fever!", "Rheumatic fever.", 1),
        ("rheumatic heart fever", "rheumatic fever", 0),
        ("fever, rheumatic", "rheumatic fever", 0),
        ("non-rheumatics feverish", "rheumatic fever", 0),
        ("Cefaclorin", "Cefaclor.", 0),
        ("a dose of 5.5 mg", "5", 0),
        ("a dose of 5 mg.", "5", 1),
        ("1,005 cells", "5", 0),
        ("in 95% of cases", "95%", 1),
        ("the ratio is 1:06.", "1:06", 1),
        ("the G0 phase", "G0", 1),
        ("the G01 phase", "G0", 0),
        ("CO₂ retention", "CO2 retention", 1),
        ("<think>rheumatic fever</think> lupus", "rheumatic fever", 0),
        ("<think>rheumatic fever", "rheumatic fever", 0),
        ("lupus </think> rheumatic fever", "rheumatic fever", 1),
        ("it is not rheumatic fever", "rheumatic fever", 1),  # the flaw that the docstring admits
        ("", "rheumatic fever", 0),
        ("anything", "", None),
        ("anything", " . ", None),
        ("anything", None, None),
    ],
)
def test_containment(completion, gold, value):
    assert task_rules.containment(completion, gold).value == value


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("a<think>b", "a"),
        ("plain", "plain"),
    ],
)
def test_strip_thinking(text, rest):
    assert task_rules.strip_thinking(text) == rest


def test_exact():
    assert task_rules.exact("a ( b , c )", "a ( b ,  c )").value == 1
    assert task_rules.exact("a b", "a c").value == 0
    assert task_rules.exact(None, "a").value == 0
    assert task_rules.exact("a", None).value is None
