"""Thinking is taken away in every mark that models use, and nothing else is."""

from __future__ import annotations

import pytest

from sdft_cli.grading.thinking import strip_reasoning, strip_thinking

ANSWERS = [
    ("<think>a</think>b", "b"), ("a</think>b", "b"), ("<think>a</think>b<think>c</think>d", "d"), ("a<think>b", "a"),
    ("plain", "plain"), ("<think>a", ""), ("", ""), ("<THINK>a</THINK>b", "b"), ("Paris<think>sure?</think>", "Paris"),
    ("<thinking>a</thinking>b", "b"), ("<thought>a</thought>b", "b"), ("<seed:think>a</seed:think>b", "b"),
    ("◁think▷a◁/think▷b", "b"), ("[THINK]a[/THINK]b", "b"), ("[THINK]a", ""),
    ("<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>b<|end_of_solution|>", "b"),
    ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "b"), ("<unused94>a<unused95>b", "b"),
    ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>", "b"),
    ("<|channel|>analysis<|message|>a", ""),
    ("<|channel|>commentary to=f<|message|>b", "<|channel|>commentary to=f<|message|>b"),
    ("analysisLet me see.assistantfinalb", "b"),
    ("analysis of the text", "analysis of the text"), ("a < b and c > d", "a < b and c > d"), ("[1] b", "[1] b"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "answer"), ANSWERS)
def test_strip_thinking(text, answer):
    assert strip_thinking(text) == answer


def test_reasoning_that_a_prompt_asked_for_belongs_to_the_response_but_not_to_the_answer():
    text = "<reasoning>A?</reasoning>\n<answer>B</answer>"
    assert strip_thinking(text) == text
    assert strip_reasoning(text).strip() == "<answer>B</answer>"
    assert strip_reasoning("<scratchpad>1</scratchpad>2<reflection>3</reflection>4") == "24"
    assert strip_reasoning("<reasoning>never closed, so B") == "<reasoning>never closed, so B"
    assert strip_reasoning("<reasoning>only this</reasoning>") == "<reasoning>only this</reasoning>"
    assert strip_reasoning("<think>x</think><reasoning>y</reasoning>z") == "z"
