"""The final answer that a completion marks as such.

It is, in this order, what stands inside the last ``<answer>…</answer>``, inside the last ``\\boxed{…}``, or after the
last "answer is" or "Answer:" on its line; otherwise the whole completion without its thinking.
"""

from __future__ import annotations

import re

from sdft_cli.grading import task_rules

_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_STATED = re.compile(r"\banswer(?:\s+is\b|\s*:)[ \t*]*(\S[^\n]*?)[.*]*[ \t]*$", re.IGNORECASE | re.MULTILINE)


def final_answer(completion: str) -> tuple[str, bool]:
    """The final answer, and whether the completion marks it as such."""
    text = task_rules.strip_thinking(completion)
    for pattern in (_TAGGED, _BOXED, _STATED):
        if answers := pattern.findall(text):
            return answers[-1].strip(), True
    return text.strip(), False
