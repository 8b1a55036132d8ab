"""What a demonstration trains, for every family of chat templates: compared with the template's own text as a whole."""

from __future__ import annotations

import pytest
from support import chat_families
from support.chat_families import FAMILIES

from sdft_cli.errors import UsageError
from sdft_cli.models.chat import Chat
from sdft_cli.models.chat_template import TemplateRefusal
from sdft_cli.types import Example

ASK = [{"role": "user", "content": "what is two and two ?"}]
ANSWER = "the answer is four ."
CALL = {"id": "call_0123456789abcdef", "type": "function", "function": {"name": "look", "arguments": {"at": "map"}}}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
PLAIN = [name for name in FAMILIES if name not in ("r1", "qwen3-thinking")]


def example(demonstration=ANSWER, prompt=ASK, **more) -> Example:
    return Example("row-1", prompt, demonstration, **more)


def whole(tokenizer, messages: list[dict], generate: bool = False, **more) -> str:
    """The conversation by the template alone."""
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate, **more)


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def said(**turn) -> dict:
    return {"role": "assistant", "content": ANSWER, **turn}


def trained_text(tokenizer, ids: list[int], mask: list[bool]) -> str:
    return tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])


@pytest.mark.parametrize("name", PLAIN)
def test_prompt_and_completion_are_the_templates_text_as_one_up_to_its_end(name: str) -> None:
    tokenizer, family = chat_families.tokenizer(name), FAMILIES[name]
    chat = Chat(tokenizer)
    text = whole(tokenizer, [*ASK, said()])
    if family.end is None:  # nothing ends the turn but the tokenizer's token
        expected = [*ids_of(tokenizer, text.rstrip("\n")), tokenizer.eos_token_id]
    else:
        ids = ids_of(tokenizer, text)
        end = tokenizer.convert_tokens_to_ids(family.end)
        expected = ids[: len(ids) - ids[::-1].index(end)]
    ids, mask = chat.completion(example())
    assert chat.prompt_ids(ASK) + ids == expected and all(mask)
    assert chat.prompt_ids(ASK) == ids_of(tokenizer, whole(tokenizer, ASK, generate=True))
    assert chat.decode(ids).strip().endswith(ANSWER)
    assert tokenizer.decode(ids).count(family.end or family.eos) == 1 and ids[-1] == chat.end_id


def test_the_first_token_after_a_llama_2_prompt_is_the_templates() -> None:
    tokenizer = chat_families.tokenizer("llama-2")
    ids, _ = Chat(tokenizer).completion(example("four"))
    alone = ids_of(tokenizer, "four")
    assert alone[0] != ids[0] and tokenizer.convert_ids_to_tokens(ids[0]).startswith("▁")
    assert tokenizer.decode(ids) == "four </s>".replace(" </s>", " </s>")


def test_the_generation_keyword_marks_the_same_tokens() -> None:
    tokenizer = chat_families.tokenizer("generation")
    marked = tokenizer.apply_chat_template([*ASK, said()], return_dict=True, return_assistant_tokens_mask=True)
    expected = [i for i, m in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if m]
    assert Chat(tokenizer).completion(example())[0] == expected


# --- thinking ---------------------------------------------------------------------------------------------------------

THOUGHT = "hm , two and two"
BLOCK = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"
EMPTY = f"<think>\n\n</think>\n\n{ANSWER}"
#: family, switch, the turn -> what prompt and completion say after the last role's header
THINKING = {
    "hybrid, default": ("qwen3", None, {}, EMPTY),
    "hybrid, on": ("qwen3", True, {}, EMPTY),
    "hybrid, off": ("qwen3", False, {}, EMPTY),
    "hybrid, reasoning": ("qwen3", None, {"reasoning_content": THOUGHT}, BLOCK),
    "hybrid, a block of its own": ("qwen3", True, {"content": BLOCK}, BLOCK),
    "thinking, none": ("qwen3-thinking", None, {}, EMPTY),
    "thinking, reasoning": ("qwen3-thinking", None, {"reasoning_content": THOUGHT}, BLOCK),
    "thinking, a block of its own": ("qwen3-thinking", None, {"content": BLOCK}, BLOCK),
    "r1, none": ("r1", None, {}, EMPTY),
    "r1, reasoning": ("r1", None, {"reasoning_content": THOUGHT}, BLOCK),
    "r1, a block of its own": ("r1", None, {"content": BLOCK}, BLOCK),
    "no form of thinking, a block of its own": ("chatml", None, {"content": BLOCK}, BLOCK),
}


@pytest.mark.parametrize("case", THINKING)
def test_a_turn_closes_the_thinking_that_its_prompt_opens_and_opens_it_once(case: str) -> None:
    name, switch, turn, expected = THINKING[case]
    tokenizer, family = chat_families.tokenizer(name), FAMILIES[name]
    chat = Chat(tokenizer, switch)
    shown = example([said(**turn)] if "reasoning_content" in turn else turn.get("content", ANSWER))
    ids, mask = chat.completion(shown)
    prompt = chat.render(ASK)
    text = prompt + tokenizer.decode(ids)
    header = "<|Assistant|>" if name == "r1" else "<|im_start|>assistant\n"
    assert text.rpartition(header)[2] == expected + family.end and all(mask)
    # the prompt's tokens stay its own, and what follows is split as the whole text is, but for a token across both
    assert chat.prompt_ids(ASK) == ids_of(tokenizer, prompt)
    assert ids[1:] == ids_of(tokenizer, text)[-len(ids) + 1 :]
    after = len(ids_of(tokenizer, ANSWER)) + (1 if name == "chatml" else 2)  # ChatML's last ">" is one with the lines
    assert chat.thinking_length(ids) == (0 if switch is False else len(ids) - after)


def test_thinking_switched_off_leaves_no_place_for_reasoning() -> None:
    chat = Chat(chat_families.tokenizer("qwen3"), thinking=False)
    with pytest.raises(
        TemplateRefusal, match="row row-1: the demonstration has reasoning, and the prompt has thinking"
    ):
        chat.completion(example([said(reasoning_content=THOUGHT)]))


def test_a_template_without_thinking_refuses_reasoning_rather_than_drop_it() -> None:
    chat = Chat(chat_families.tokenizer("chatml"))
    with pytest.raises(
        TemplateRefusal, match="row row-1: the chat template has no place for the demonstration's reason"
    ):
        chat.completion(example([said(reasoning_content=THOUGHT)]))


def test_a_switch_that_the_template_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="no switch for thinking"):
        Chat(chat_families.tokenizer("gemma")).render(ASK, thinking=False)


#: what the generation prompt opens, what a finished turn begins with -> what is trained (DeepSeek V3.1 and others)
OPENINGS = {
    "closed by the turn": ("<think>", "</think>", f"{THOUGHT}</think>{ANSWER}"),
    "on one line": ("<think>", "", f"{THOUGHT}</think>{ANSWER}"),
    "without a line": ("<think>\n", "<think></think>", f"{THOUGHT}\n</think>\n\n{ANSWER}"),
    "of another name": ("[THINK]", "", f"{THOUGHT}[/THINK]{ANSWER}"),
}


@pytest.mark.parametrize("case", OPENINGS)
def test_other_ways_to_open_thinking(case: str) -> None:
    opens, begins, expected = OPENINGS[case]
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + ('" + begins + "' if m.role == 'assistant' else '')"
        " + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n" + opens.replace("\n", "\\n") + "' }}{% endif %}"
    )
    tokenizer = chat_families.tokenizer("qwen3", chat_template=template)
    ids, _ = Chat(tokenizer).completion(example([said(reasoning_content=THOUGHT)]))
    assert tokenizer.decode(ids) == expected + "<|im_end|>"


def test_a_block_in_the_content_is_the_reasoning_where_the_template_would_add_a_second() -> None:
    """A template that reads ``reasoning_content`` and leaves the content's own tags alone (Qwen3.8)."""
    unparted = FAMILIES["qwen3-thinking"].template.replace("not reason and '</think>' in content", "false")
    chat = Chat(chat_families.tokenizer("qwen3-thinking", chat_template=unparted))
    ids, _ = chat.completion(example(BLOCK))
    assert chat.tokenizer.decode(ids) == f"{THOUGHT}\n</think>\n\n{ANSWER}<|im_end|>"


def test_white_space_around_a_generation_prompt_is_no_other_turn() -> None:
    """A template with its own line breaks at the end, as when it is printed for people."""
    template = FAMILIES["chatml"].template.replace("assistant\n' }}{% endif %}", "assistant\n' }}\n\n{% endif %}\n")
    tokenizer = chat_families.tokenizer("chatml", chat_template=template)
    chat = Chat(tokenizer)
    assert chat.render(ASK).endswith("assistant\n\n\n")
    assert tokenizer.decode(chat.completion(example())[0]) == f"{ANSWER}<|im_end|>"


# --- several turns, tools ---------------------------------------------------------------------------------------------

TRACE = [
    said(content="", tool_calls=[CALL]),
    {"role": "tool", "content": "seven", "tool_call_id": CALL["id"], "name": "look"},
    said(),
]
CALLED = '<tool_call>\n{"name": "look", "arguments": {"at": "map"}}\n</tool_call><|im_end|>'
STEPS = [said(content="hm"), {"role": "tool", "content": "seven"}, said()]
#: family, turns -> what is trained
SEVERAL = {
    "tools": (TRACE, f"{CALLED}{ANSWER}<|im_end|>"),
    "qwen3": (TRACE, f"{CALLED}{EMPTY}<|im_end|>"),
    "chatml": (STEPS, f"hm<|im_end|>{ANSWER}<|im_end|>"),
    "llama-3": (STEPS, f"hm<|eot_id|>{ANSWER}<|eot_id|>"),
    "phi-3": (STEPS, f"hm<|end|>{ANSWER}<|end|>"),
    "glm-4": (STEPS, f"\nhm<|observation|>\n{ANSWER}<|endoftext|>"),  # GLM ends a call with the next turn's token
}


@pytest.mark.parametrize("name", SEVERAL)
def test_of_several_turns_the_assistants_are_trained_with_their_ends(name: str) -> None:
    turns, expected = SEVERAL[name]
    tokenizer, tools = chat_families.tokenizer(name), TOOLS if turns is TRACE else None
    chat = Chat(tokenizer)
    ids, mask = chat.completion(example(turns, tools=tools))
    assert trained_text(tokenizer, ids, mask) == expected
    text, together = whole(tokenizer, [*ASK, *turns], tools=tools), chat.prompt_ids(ASK, tools=tools) + ids
    assert tokenizer.decode(ids_of(tokenizer, text)).startswith(tokenizer.decode(together[:-1]))
    if name != "phi-3":  # there a token of the whole text lies across the prompt's end
        assert ids_of(tokenizer, text)[: len(together) - 1] == together[:-1]
    quiet = [{**turns[0], "weight": 0}, *turns[1:]]
    same, fewer = chat.completion(example(quiet, tools=tools))
    assert (
        same == ids and trained_text(tokenizer, ids, fewer) == expected[expected.rindex(ANSWER) - len(_before(name)) :]
    )


def _before(name: str) -> str:
    """What belongs to the last turn before its answer."""
    return EMPTY.removesuffix(ANSWER) if name == "qwen3" else "\n" if name == "glm-4" else ""


def test_one_turn_of_tool_calls_is_trained_to_its_end() -> None:
    tokenizer = chat_families.tokenizer("tools")
    ids, mask = Chat(tokenizer).completion(example(TRACE[:1], tools=TOOLS))
    assert tokenizer.decode(ids) == CALLED and all(mask)


def test_a_template_that_drops_thinking_from_earlier_turns_is_refused_for_several() -> None:
    turns = [said(reasoning_content=THOUGHT), *STEPS[1:]]
    with pytest.raises(TemplateRefusal, match="row row-1: the chat template rewrites earlier turns"):
        Chat(chat_families.tokenizer("r1", chat_template=_R1_WITH_TOOLS)).completion(example(turns))


_R1_WITH_TOOLS = FAMILIES["r1"].template.replace(
    "{% endif %}{% endfor %}", "{% else %}{{ '<|User|>' + m.content }}{% endif %}{% endfor %}"
)


def test_arguments_are_given_as_the_template_takes_them() -> None:
    """DeepSeek's template adds the arguments to a text, Qwen's turns an object into one."""
    as_text = FAMILIES["tools"].template.replace("| tojson }}{% endfor %}{{", "| tojson }}{% endfor %}{{")
    joined = as_text.replace(
        "({'name': c.function.name, 'arguments': c.function.arguments} | tojson)",
        "c.function.name + ' ' + c.function.arguments",
    )
    for template, expected in ((as_text, '"arguments": {"at": "map"}'), (joined, 'look {"at": "map"}')):
        tokenizer = chat_families.tokenizer("tools", chat_template=template)
        for arguments in ({"at": "map"}, '{"at": "map"}'):
            call = {**CALL, "function": {"name": "look", "arguments": arguments}}
            ids, _ = Chat(tokenizer).completion(example([said(content="", tool_calls=[call])]))
            assert expected in tokenizer.decode(ids)


def test_ids_of_calls_are_shortened_for_a_template_that_wants_nine_characters() -> None:
    mistral = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}{% for c in m.tool_calls or [] %}"
        "{% if c.id | length != 9 %}{{ raise_exception('ids have length 9') }}{% endif %}{{ c | tojson }}{% endfor %}"
        "{% if m.role == 'tool' %}{{ m.tool_call_id }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    )
    tokenizer = chat_families.tokenizer("tools", chat_template=mistral)
    without = [{**TRACE[0], "tool_calls": [{k: v for k, v in CALL.items() if k != "id"}]}, STEPS[1], said()]
    for turns in (TRACE, without):
        text = Chat(tokenizer).render([*ASK, *turns], generate=False)
        short = text.partition('"id": "')[2][:9]
        assert text.count(short) == 2 and CALL["id"] not in text


def test_content_is_given_in_parts_to_a_template_that_wants_parts() -> None:
    parts = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% for part in m.content %}{{ part.text }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tokenizer = chat_families.tokenizer("chatml", chat_template=parts)
    chat, usual = Chat(tokenizer), Chat(chat_families.tokenizer("chatml"))
    assert chat.prompt_ids(ASK) == usual.prompt_ids(ASK) and chat.completion(example()) == usual.completion(example())


# --- what a template cannot show is refused, by row -------------------------------------------------------------------

SYSTEM = [{"role": "system", "content": "be kind"}]
REFUSED = {
    "gemma": (SYSTEM + ASK, {}, "refuses the messages: System role not supported", "--merge-system"),
    "mistral": (ASK + ASK, {}, "refuses the messages: Conversation roles must alternate", "--on-bad-row drop"),
    "zephyr": ([*ASK, *TRACE[:2]], {}, "leaves out", "--on-bad-row drop"),
    "chatml": (ASK, {"tools": TOOLS}, "does not show the row's tools", "template knows tools"),
    "llama-3": ([*ASK, said(tool_calls=[CALL]), *ASK], {}, "leaves out the tool calls of turn 2", "knows tool calls"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_template_cannot_show_is_refused_by_row_in_one_line(name: str) -> None:
    prompt, more, message, hint = REFUSED[name]
    chat, row = Chat(chat_families.tokenizer(name)), example(prompt=prompt, **more)
    for attempt in (lambda: chat.view_ids(row, row.prompt), lambda: chat.completion(row)):
        with pytest.raises(TemplateRefusal) as error:
            attempt()
        assert error.value.message.startswith("row row-1: the chat template ") and "\n" not in error.value.message
        assert message in error.value.message and hint in error.value.hint


def test_whatever_a_broken_template_raises_is_one_line() -> None:
    for broken in ("{{ messages[5].content }}", "{{ 1 + 'a' }}", "{{ nothing.of.it }}", "{% if %}", "{{ 1 / 0 }}"):
        with pytest.raises(TemplateRefusal, match="the chat template refuses the messages: "):
            Chat(chat_families.tokenizer("chatml", chat_template=broken)).render(ASK)


def test_a_system_message_that_a_template_passes_over_is_noticed() -> None:
    silent = FAMILIES["zephyr"].template.replace("'system', ", "")
    with pytest.raises(TemplateRefusal, match="leaves out turn 1, of role 'system'") as error:
        Chat(chat_families.tokenizer("zephyr", chat_template=silent)).render(SYSTEM + ASK)
    assert "--merge-system" in error.value.hint


# --- several templates, other tokenizers, raw text --------------------------------------------------------------------


def test_of_several_templates_tools_choose_the_one_for_tools() -> None:
    named = {"default": FAMILIES["chatml"].template, "tool_use": FAMILIES["tools"].template}
    chat = Chat(chat_families.tokenizer("tools", chat_template=named))
    assert chat.render(ASK, tools=TOOLS) == Chat(chat_families.tokenizer("tools")).render(ASK, tools=TOOLS)
    assert chat.render(ASK) == Chat(chat_families.tokenizer("chatml")).render(ASK)
    assert Chat(chat_families.tokenizer("tools", chat_template=named)).end_id == chat.end_id
    with pytest.raises(UsageError, match="no default specified"):
        Chat(chat_families.tokenizer("tools", chat_template={"tool_use": named["tool_use"]})).render(ASK)


def test_a_tokenizer_without_an_end_of_text_ends_with_the_templates_end() -> None:
    tokenizer = chat_families.tokenizer("chatml, base", eos_token=None)
    chat = Chat(tokenizer)
    assert chat.eos_id == chat.end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    with pytest.raises(UsageError, match="no end-of-sequence token"):
        Chat(chat_families.tokenizer("plain text", eos_token=None))


def test_a_slow_tokenizer_without_offsets_works() -> None:
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer(extra_ids=0)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content + '</s>' }}{% endfor %}" + (
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    ids, mask = Chat(tokenizer).completion(example("Zürich, 東京"))
    assert bytes(i - 3 for i in ids[:-1]).decode() == "Zürich, 東京" and ids[-1] == tokenizer.eos_token_id and all(mask)


def test_raw_text_has_the_tokenizers_beginning_and_one_end() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = chat_families.tokenizer("gemma")
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    words = ids_of(tokenizer, "two and two")
    ends = (("<bos> $A", [("<bos>", bos)]), ("<bos> $A <eos>", [("<bos>", bos), ("<eos>", eos)]))
    for single, special in ends:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
        chat = Chat(tokenizer)
        assert chat.text_ids("two and two") == [bos, *words, eos]
        assert chat.prompt_ids(ASK).count(bos) == 1  # the template wrote it
    assert Chat(chat_families.tokenizer("chatml")).text_ids("two") == [
        *ids_of(chat_families.tokenizer("chatml"), "two"),
        Chat(chat_families.tokenizer("chatml")).eos_id,
    ]


def test_text_of_a_completion_has_no_end_in_it_though_the_tokenizer_does_not_call_it_special() -> None:
    tokenizer = chat_families.tokenizer("qwen3")
    closing = FAMILIES["qwen3"].template.replace("<|im_end|>", "</tool_call>")
    tokenizer.chat_template = closing
    chat = Chat(tokenizer)
    ids, _ = chat.completion(example())
    assert chat.end_id == tokenizer.convert_tokens_to_ids("</tool_call>") == ids[-1]
    assert chat.decode(ids) == EMPTY
