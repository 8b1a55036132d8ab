"""Token counts: what whoever pays has paid, in the forms in which servers report it."""

# ruff: noqa: E501 (usage is quoted as it is sent)
from __future__ import annotations

import pytest

from sdft_cli.llm.token_counts import token_counts


@pytest.mark.parametrize(
    ("usage", "read", "written"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, 10, 5),
        ({"prompt_tokens": 10, "completion_tokens": 5}, 10, 5),
        # OpenAI: thinking is part of the completion, a cached prompt part of the prompt
        ({"prompt_tokens": 10, "completion_tokens": 500, "total_tokens": 510, "completion_tokens_details": {"reasoning_tokens": 300}}, 10, 500),
        ({"prompt_tokens": 2000, "completion_tokens": 5, "total_tokens": 2005, "prompt_tokens_details": {"cached_tokens": 1920}}, 2000, 5),
        # Gemini: thinking is only in the total; xAI: also on its own
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 10_015}, 10, 10_005),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 315, "completion_tokens_details": {"reasoning_tokens": 300}}, 10, 305),
        ({"completion_tokens": 0, "total_tokens": 81, "prompt_tokens": 21, "completion_tokens_details": {"reasoning_tokens": 60}}, 21, 60),
        # thinking beside the completion, in no total, or in none that is sent
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "reasoning_tokens": 4000}, 10, 4005),
        ({"prompt_tokens": 10, "completion_tokens": 400, "output_tokens_details": {"reasoning_tokens": 300}}, 10, 700),
        # Anthropic's names: what is cached is not part of the input
        ({"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 7}, 1017, 5),
        ({"prompt_tokens": 1017, "completion_tokens": 5, "cache_read_input_tokens": 1000}, 1017, 5),
        ({"prompt_tokens": 10, "completion_tokens": 5, "cache_read_input_tokens": 1000}, 1010, 5),
        # half of it
        ({"completion_tokens": 5, "total_tokens": 15}, 10, 5),
        ({"prompt_tokens": 10, "total_tokens": 15}, 10, 5),
        ({"prompt_tokens": "10", "completion_tokens": 5.0}, 10, 5),
        ({"prompt_tokens": True, "completion_tokens": -5}, None, None),
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, None, None),
        ({}, None, None),
        (None, None, None),
        ([], None, None),
    ],
)  # fmt: skip
def test_the_larger_reading_counts(usage, read, written):
    assert token_counts(usage) == (read, written)
