"""The loss mask beside TRL's: its training templates mark the assistant's tokens with the ``generation`` keyword.

TRL also trains what stands behind a turn's end (a line break, Phi's ``<|endoftext|>``); we stop at the end, as a
sampler does.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from support import chat_families

from sdft_cli.models.chat import Chat
from sdft_cli.types import Example

CALL = {"id": "call00001", "type": "function", "function": {"name": "look", "arguments": {"at": "map"}}}
PROPERTIES = {"at": {"type": "string", "description": "where"}}
PARAMETERS = {"type": "object", "properties": PROPERTIES, "required": ["at"]}
TOOLS = [{"type": "function", "function": {"name": "look", "description": "look it up", "parameters": PARAMETERS}}]
ASK = [{"role": "user", "content": "what is two and two ?"}]
SAID = {"role": "assistant", "content": "the answer is four ."}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TRACE = [CALLING, {"role": "tool", "content": "seven", "name": "look", "tool_call_id": "call00001"}, SAID]
#: template -> the end-of-text token of its models, and whether it knows tools
TEMPLATES = {
    "cohere": ("<|END_OF_TURN_TOKEN|>", False),
    "cohere2": ("<|END_OF_TURN_TOKEN|>", False),
    "gemma": ("<eos>", False),
    "gemma3": ("<eos>", False),
    "glm4moe": ("<|endoftext|>", True),
    "lfm2_v2": ("<|im_end|>", True),
    "llama3": ("<|end_of_text|>", False),
    "phi3": ("<|endoftext|>", False),
    "phi3_5": ("<|endoftext|>", False),
    "qwen3": ("<|im_end|>", True),
    "qwen3_instruct_2507": ("<|im_end|>", True),
    "qwen3_vl": ("<|im_end|>", True),
}


def tokenizer(name: str, eos: str):
    """A tokenizer whose special tokens are those that TRL's training template writes."""
    origin = find_spec("trl")
    assert origin is not None and origin.submodule_search_locations
    template = (Path(origin.submodule_search_locations[0]) / "chat_templates" / f"{name}_training.jinja").read_text()
    made = chat_families.tokenizer("chatml, base", chat_template=template)
    special = {eos, "<bos>", *re.findall(r"<\|[\w]+\|>|<(?:start|end)_of_turn>", template)}
    made.add_tokens(sorted(special), special_tokens=True)
    made.add_special_tokens({"eos_token": eos, "bos_token": "<bos>"})
    made.add_tokens([tag for tag in ("<think>", "</think>", "<tool_call>", "</tool_call>") if tag in template])
    return made


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_tokens_in_the_loss_are_those_that_trl_marks(name: str) -> None:
    eos, knows_tools = TEMPLATES[name]
    made = tokenizer(name, eos)
    chat = Chat(made)
    for turns, tools in (([SAID], None), *((([CALLING], TOOLS), (TRACE, TOOLS)) if knows_tools else ())):
        marked = made.apply_chat_template(
            [*ASK, *turns], tools=tools, return_dict=True, return_assistant_tokens_mask=True
        )
        theirs = [i for i, m in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if m]
        ids, mask = chat.completion(Example("x", ASK, turns, tools=tools))
        ours = [i for i, m in zip(ids, mask, strict=True) if m]
        assert ours == _without_what_follows(theirs, chat.end_id, {*chat.splitter.inside("\n"), chat.eos_id})


def _without_what_follows(ids: list[int], end: int, others: set[int]) -> list[int]:
    """``ids`` without the tokens of ``others`` that follow an ``end``."""
    kept: list[int] = []
    for i in ids:
        if not (kept and kept[-1] == end and i in others - {end}):
            kept.append(i)
    return kept
