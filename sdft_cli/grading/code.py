"""The grader ``code``: the completion's Python passes the row's unit tests, in the sandbox (`sandbox.programs`).

Tests are asserts (text, or a list of them as in MBPP), HumanEval's ``check(candidate)`` with the ``entry_point`` that
it is called with, functions called ``test_…``, or classes of `unittest`. Naming this grader is the permission to run
what a model writes; on a machine that cannot confine it, nothing is run and the grader is refused.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import warnings
from pathlib import Path

from sdft_cli.errors import UsageError
from sdft_cli.grading.fences import Fenced, fenced
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.messages import question_text
from sdft_cli.sandbox import programs
from sdft_cli.types import Example, Json, Score

_PYTHON = ("python", "py", "python3", "")
_BEGINS = re.compile(r"^(?:async def|def|class|import|from|@)\b", re.MULTILINE)
_DEFINED = re.compile(r"^(?:async def|def|class)[ \t]+(\w+)|^(\w+)[ \t]*(?::[^=\n]+)?=(?!=)", re.MULTILINE)
#: Lines that are taken from the end of a completion without a block of code until it is Python.
_CUT = 200
_DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_RUN_UNITTEST = """
import unittest as _unittest
_classes = [c for c in list(globals().values()) if isinstance(c, type) and issubclass(c, _unittest.TestCase)]
_result = _unittest.TestResult()
_unittest.TestSuite(map(_unittest.defaultTestLoader.loadTestsFromTestCase, _classes)).run(_result)
assert _result.wasSuccessful(), (_result.failures + _result.errors)[0][1].strip().splitlines()[-1]
assert _result.testsRun, "no test ran"
"""
_RUN_FUNCTIONS = """
for _name, _test in list(globals().items()):
    if _name.startswith("test_") and callable(_test):
        _test()
"""


def unit_tests(completion: str, row: Example, folder: Path | None = None) -> Score:
    """Right if the program reaches its end: the row's ``setup``, the completion's code, then its ``tests``."""
    try:
        tests = tests_of(row.meta.get("tests"), row.meta.get("entry_point"))
    except ValueError as error:
        return Score(None, None, f"unscored: {error}")
    code = code_of(strip_thinking(completion), tests)
    if not code.strip():
        return Score(0.0, None, "no code found")
    program = "\n\n".join([*setup_of(row), completed(code, question_text(row.prompt), tests), tests])
    result = programs.run(program)
    return Score(float(result.passed), code[:1000], "passed" if result.passed else result.why or "failed")


def ready() -> None:
    """Raise `UsageError` where this machine cannot confine what a model writes."""
    try:
        programs.ready()
    except UsageError as error:
        hint = 'grader = "code" runs what a model writes, which needs Linux; or name another grader'
        raise UsageError(error.message, hint) from error


# --- the tests --------------------------------------------------------------------------------------------------------


def tests_of(tests: Json, entry_point: Json = None) -> str:
    """The tests as a program that fails by an exception. Raises ValueError where the row has none that can be run."""
    if isinstance(tests, str) and tests.lstrip().startswith("["):
        with contextlib.suppress(ValueError):  # of Python, such as a list's display
            tests = json.loads(tests)
    if isinstance(tests, list) and all(isinstance(test, str) for test in tests):
        tests = "\n".join(tests)
    if not isinstance(tests, str) or not tests.strip():
        raise ValueError("the row has no tests")
    try:
        defined = {node.name for node in _parsed(tests).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the row's tests are not Python: {error}") from None
    if "check" in defined and not re.search(r"^check\(", tests, re.MULTILINE):
        if not isinstance(entry_point, str) or not entry_point.isidentifier():
            raise ValueError("the row's tests define check(candidate), and it has no entry_point to call it with")
        return f"{tests}\n\ncheck({entry_point})"
    if "TestCase" in tests and any(not name.startswith("test_") for name in defined):
        return tests + _RUN_UNITTEST
    return tests + _RUN_FUNCTIONS if any(name.startswith("test_") for name in defined) else tests


def setup_of(row: Example) -> list[str]:
    """What the row wants to have run first (MBPP's ``test_setup_code``)."""
    setup = row.meta.get("setup")
    lines = setup if isinstance(setup, list) else [setup]
    return [str(line) for line in lines if line]


# --- the code ---------------------------------------------------------------------------------------------------------


def code_of(text: str, tests: str) -> str:
    """The Python in a completion: its blocks of code up to the last that defines what the tests use; without any block,
    the longest part of the text that is Python, or could be the rest of a function."""
    blocks = [block for block in fenced(text) if block.language in _PYTHON]
    blocks = [block for block in blocks if block.language] or blocks
    if not blocks:
        return _plain_code(text)
    used = set(re.findall(r"\w+", tests))
    defining = [i for i, block in enumerate(blocks) if defined_in(block) & used]
    return "\n\n".join(block.text for block in blocks[: defining[-1] + 1 if defining else len(blocks)])


def defined_in(block: Fenced) -> set[str]:
    """The names that a block of code defines at its top."""
    return {name for pair in _DEFINED.findall(block.text) for name in pair if name}


def _plain_code(text: str) -> str:
    text = text.strip("\n")
    if not text[:1].isspace() and not is_python(text) and (begin := _BEGINS.search(text)):
        text = text[begin.start() :]
    lines = text.splitlines()
    for kept in range(len(lines), max(0, len(lines) - _CUT), -1):
        part = "\n".join(lines[:kept])
        if is_python(part) or (text[:1].isspace() and is_python(f"def f():\n{part}")):
            return part
    return text


def completed(code: str, prompt: str, tests: str) -> str:
    """The code behind what the prompt begins, where that defines something that the tests use: HumanEval's prompts are
    Python (or have a block of it), whose last function the code continues, or defines anew.

    Code that begins anew gets the prompt's imports and definitions, and nothing that the prompt would run.
    """
    used = set(re.findall(r"\w+", tests))
    parts = [Fenced("", prompt.strip("\n")), *reversed(fenced(prompt))]
    begun = next((part.text for part in parts if defined_in(part) & used and is_python(part.text)), "")
    if code[:1].isspace():
        return f"{begun}\n{code}"
    kept = [ast.unparse(node) for node in _parsed(begun).body if isinstance(node, _DEFINITIONS)]
    return "\n\n".join([*kept, code])


def is_python(text: str) -> bool:
    """Whether ``text`` can be parsed; a function that ends with its docstring can."""
    try:
        return bool(_parsed(text).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _parsed(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes and the like
        return ast.parse(text)


CODE = Grader(
    "code",
    "the completion's Python passes the row's unit tests (column tests), run in a sandbox; Linux only",
    "tests prove no more than they try; code that sets out to fool them can; only Python's standard library is there, "
    "without files or network; 3 seconds of processor time and 1 GiB",
    score_row=unit_tests,
    columns=("tests", "setup", "entry_point"),
    ready=ready,
)
