"""The rule `math`: a hung comparison is killed and its row unscored; without math-verify it says so. Its table is in
`test_answers`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.grading import mathematics
from sdft_cli.grading.named_rules import GRADERS, grader

needs_math = pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed")


@needs_math
def test_a_hung_comparison_is_killed_and_the_next_one_answered(monkeypatch):
    monkeypatch.setattr(mathematics, "SECONDS", 1.0)
    grade = grader("math")
    began = time.monotonic()
    score = grade("9^{9^{9^{9}}}", "x^3+1")
    assert time.monotonic() - began < 60  # on a busy machine; it takes 2 s
    assert score.value is None and score.why.startswith("unscored: comparing took more than")
    assert grade("1+x^3", "x^3+1").value == 1


@needs_math
def test_the_libraries_stay_out_of_this_process():
    code = (
        "import sys; from sdft_cli.grading.named_rules import grader; g = grader('math');"
        "assert g('x^2+1+0', '1+x^2').value == 1;"
        "print(*sorted({'sympy', 'math_verify', 'torch', 'antlr4'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@needs_math
def test_what_is_equal_as_a_number_or_a_text_needs_no_process(monkeypatch):
    monkeypatch.setattr(mathematics._worker, "ask", None)
    assert grader("math")("The answer is 1,000.", "1000").value == 1
    assert grader("math")("\\boxed{x^2}", "$x^2$").value == 1
    assert grader("math")("Tuesday", "\\text{Monday}").value == 0


@needs_math
def test_very_long_expressions_are_not_compared():
    assert grader("math")("x+" * 5000 + "1", "x").value is None


def test_without_math_verify_the_grader_says_how_to_install_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "math_verify" else real(name))
    with pytest.raises(UsageError, match="grader 'math' needs math-verify") as error:
        GRADERS["math"].ready()
    assert error.value.hint == "pip install 'sdft-cli[math]'"
    assert not mathematics.is_mathematics("x^2"), "it is not chosen where it cannot work"
