"""Blocks of code in completions."""

from __future__ import annotations

import pytest

from sdft_cli.grading.fences import fenced

CASES = {
    "a\n```python\nx = 1\n```\nb": [("python", "x = 1")],
    "Answer: ```SQL\nselect 1\n```": [("sql", "select 1")],
    "```\na\n```\n```json\nb\n```": [("", "a"), ("json", "b")],
    "```py\nnever closed": [("py", "never closed")],
    "````md\n```py\nx\n```\n````": [("md", "```py\nx\n```")],
    "~~~json\n{}\n~~~": [("json", "{}")],
    "1. Do:\n   ```py\n   if x:\n       y\n   ```": [("py", "if x:\n    y")],
    'It is ```json {"a": 1}```': [("json", '{"a": 1}')],
    "It is ```x```": [("", "x")],
    "```python title=x\nx\n```": [("python", "x")],
    "no code, ` only one`": [],
}


@pytest.mark.parametrize("text", CASES)
def test_fenced(text):
    assert fenced(text) == CASES[text]


def test_it_takes_linear_time():
    assert len(fenced("```py\nx\n```\n" * 20_000)) == 20_000
