"""The grader ``code``: programs put together from completions, prompts and tests, and run in the sandbox."""

from __future__ import annotations

import gzip
import json
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

from sdft_cli.grading import code
from sdft_cli.grading.named_rules import grader
from sdft_cli.sandbox import jail
from sdft_cli.types import Example

HUMAN_EVAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "prior" / "humaneval" / "HumanEval.jsonl.gz"
linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in jail.MACHINES, reason="the sandbox is for Linux"
)


def grade(completion: str, prompt: str = "write it", **meta: Any):
    return grader("code").score(completion, Example("x", [{"role": "user", "content": prompt}], meta=meta))


ADD = "def add(a, b):\n    return a + b"
STUB = 'from typing import List\n\n\ndef inc(x: int) -> int:\n    """One more.\n    >>> inc(1)\n    2\n    """\n'
CHECK = "def check(candidate):\n    assert candidate(1) == 2\n"
UNIT = (
    "import unittest\n\nclass T(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(1, 2), {})\n"
)
GRADED = [  # (completion, prompt, meta, value)
    (f"```python\n{ADD}\n```", "", {"tests": "assert add(1, 2) == 3"}, 1),
    (ADD, "", {"tests": ["assert add(1, 2) == 3"]}, 1),
    (ADD, "", {"tests": '["assert add(1, 2) == 3", "assert add(0, 0) == 1"]'}, 0),
    (f"Use:\n```py\n{ADD}\n```\nSo:\n```python\nprint(add(*input()))\n```", "", {"tests": "assert add(1, 2) == 3"}, 1),
    (
        f"```python\nimport math\n```\nand\n```python\n{ADD} + 0 * math.pi\n```",
        "",
        {"tests": "assert add(1, 2) == 3"},
        1,
    ),
    (f"First:\n```python\n{ADD} + 1\n```\nNo, this:\n```python\n{ADD}\n```", "", {"tests": "assert add(1, 2) == 3"}, 1),
    (f"Sure!\n{ADD}\nThis adds.", "", {"tests": "assert add(1, 2) == 3"}, 1),
    ("no", "", {"tests": "assert add(1, 2) == 3"}, 0),
    ("", "", {"tests": "assert add(1, 2) == 3"}, 0),
    (f"<think>{ADD}</think>", "", {"tests": "assert add(1, 2) == 3"}, 0),
    (ADD, "", {"tests": "assert add(pi, 0) > 3", "setup": "from math import pi"}, 1),
    (ADD, "", {"tests": UNIT.format(3)}, 1),
    (ADD, "", {"tests": UNIT.format(4)}, 0),
    (ADD, "", {"tests": "def test_it():\n    assert add(1, 2) == 3"}, 1),
    (ADD, "", {"tests": "def test_it():\n    assert add(1, 2) == 4"}, 0),
    ("    return x + 1", STUB, {"tests": CHECK, "entry_point": "inc"}, 1),
    ("    return x", STUB, {"tests": CHECK, "entry_point": "inc"}, 0),
    ("    return x + 1\n\nprint('never closed", STUB, {"tests": CHECK, "entry_point": "inc"}, 1),
    (
        "```python\ndef inc(x: int) -> int:\n    xs: List[int] = [x]\n    return xs[0] + 1\n```",
        f"Complete:\n```python\n{STUB}```",
        {"tests": CHECK, "entry_point": "inc"},
        1,
    ),
    (
        "```python\ndef inc(x):\n    return x + 1\n```",
        "Mend:\n```python\ndef inc(x): return x\nassert inc(1) == 2\n```",
        {"tests": CHECK, "entry_point": "inc"},
        1,
    ),
    ("import sys\nsys.exit(0)", "", {"tests": "assert add(1, 2) == 3"}, 0),
    (f"{ADD}\nopen('/etc/passwd')", "", {"tests": "assert add(1, 2) == 3"}, 0),
]


@linux
@pytest.mark.parametrize(("completion", "prompt", "meta", "value"), GRADED)
def test_programs(completion, prompt, meta, value):
    score = grade(completion, prompt or "write it", **meta)
    assert score.value == value, score
    assert score.why


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        ({}, "the row has no tests"),
        ({"tests": " "}, "the row has no tests"),
        ({"tests": 3}, "the row has no tests"),
        ({"tests": "assert ("}, "the row's tests are not Python"),
        ({"tests": CHECK}, "the row's tests define check(candidate), and it has no entry_point"),
    ],
)
def test_rows_without_tests_are_unscored(meta, why):
    score = grade(ADD, **meta)
    assert score.value is None and score.why.startswith(f"unscored: {why}")


def test_of_the_prompt_only_what_the_tests_use_is_taken():
    tests = "assert inc(1) == 2"
    assert code.completed("def inc(x): ...", f"```python\n{tests}\n```", tests) == "def inc(x): ..."
    assert code.completed("x = 1", "import os\n\ndef other(): ...", tests) == "x = 1"
    assert "import List" in code.completed("def inc(x): ...", STUB, tests)


def test_tests_that_call_check_themselves_are_left_alone():
    called = f"{CHECK}\ncheck(inc)"
    assert code.tests_of(called) == called and code.tests_of(CHECK, "inc").endswith("check(inc)")
    assert code.code_of("```sql\nSELECT 1\n```\n```python\nx = 1\n```", "assert x") == "x = 1"


def problems() -> list[dict[str, str]]:
    if not HUMAN_EVAL.is_file():
        pytest.skip("HumanEval is not here")
    with gzip.open(HUMAN_EVAL, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def check_problems(chosen: list[dict[str, str]]) -> None:
    """The canonical solutions pass, as continuation and as a whole function; a function that does nothing does not."""
    for problem in chosen:
        meta = {"tests": problem["test"], "entry_point": problem["entry_point"]}
        whole = f"Here it is:\n```python\n{problem['prompt']}{problem['canonical_solution']}```"
        for completion in (problem["canonical_solution"], whole):
            assert grade(completion, problem["prompt"], **meta).value == 1, problem["task_id"]
        assert grade("    pass", problem["prompt"], **meta).value == 0, problem["task_id"]


@linux
def test_some_of_human_eval():
    check_problems(problems()[32:44:4])  # 32 and 38 use functions of their prompts


@linux
@pytest.mark.slow
def test_all_of_human_eval():
    check_problems(problems())
