"""Views and chat templates: nothing is truncated, several turns get the right mask, unusable tokenizers are refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.models import pretrained, views
from sdft_cli.models.chat import Chat
from sdft_cli.types import Example


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return pretrained.load_chat(str(tiny_model))


def ask(text: str, **fields: object) -> Example:
    return Example("x", [{"role": "system", "content": "be kind"}, {"role": "user", "content": text}], **fields)


def test_only_the_last_user_turn_is_rewritten_and_braces_survive() -> None:
    example = ask('call {"a": {1}} {demonstration}', demonstration="use {question} {0}")
    shown = views.VIEWS["demonstration"](example)
    assert shown is not None and shown[0] == example.prompt[0]
    assert shown[1]["content"].startswith('call {"a": {1}} {demonstration}\n\nThis is an example')
    assert "\nuse {question} {0}\n" in shown[1]["content"]


def test_views_without_their_field_give_no_signal() -> None:
    assert views.VIEWS["demonstration"](ask("q")) is None
    assert views.VIEWS["demonstration"](ask("q", demonstration="  ")) is None
    assert views.VIEWS["context"](ask("q", demonstration="d")) is None


def test_official_and_plain_wording() -> None:
    example = ask("q", demonstration="d")
    official, plain = (views.VIEWS[f"demonstration-{k}"](example)[1]["content"] for k in ("official", "plain"))
    assert official.startswith("\nq\n\n") and official.endswith("including the thinking process.\n")
    assert plain.endswith("with a response of your own:")
    verbatim = views.VIEWS["demonstration-verbatim"](example)
    assert verbatim is not None and verbatim[1]["content"] == "q\n\nReply with exactly this:\nd"
    both = views.VIEWS["context+demonstration"](ask("q", demonstration="d", context="article"))
    assert "question:\narticle\nd\n\n" in both[1]["content"]


def test_a_demonstration_in_the_system_message_leaves_the_question_as_it_is() -> None:
    view, example = views.VIEWS["demonstration-system"], ask("q {demonstration}", demonstration="d {question}")
    (system, user), bare = view(example), replace(example, prompt=example.prompt[1:])
    assert user == example.prompt[1] and system["role"] == "system"
    assert system["content"].startswith(
        "be kind\n\nThis is an example for a response to the user's last message:\nd {qu"
    )
    assert view(bare) == [{**system, "content": system["content"].removeprefix("be kind\n\n")}, user]
    empty = replace(example, prompt=[{"role": "system", "content": " "}, user])
    assert view(empty) == view(bare) and view(replace(example, demonstration=None)) is None


def test_a_demonstration_as_a_turn_is_an_answer_given_before_the_same_question() -> None:
    view, example = views.VIEWS["demonstration-turn"], ask("q", demonstration="d")
    system, user = example.prompt
    assert view(example) == [system, user, {"role": "assistant", "content": "d"}, user]
    longer = replace(
        example, prompt=[system, {"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}, user]
    )
    assert view(longer) == [*longer.prompt, {"role": "assistant", "content": "d"}, user]
    assert view(replace(example, demonstration=" ")) is None and view(replace(example, demonstration=None)) is None


def test_a_completion_continues_the_prompt_at_the_assistants_turn(chat: Chat) -> None:
    example = ask("which number comes after five ?", demonstration="six !")
    ids, mask = chat.completion(example)
    assert ids[-1] == chat.eos_id and all(mask) and chat.decode(ids).split() == ["six", "!"]
    text = chat.tokenizer.decode(chat.prompt_ids(example.prompt))
    assert text.count("<|im_start|>") == 3 and text.rstrip().endswith("assistant")


def test_only_the_assistants_turns_are_trained_on(chat: Chat) -> None:
    turns = [
        {"role": "assistant", "content": "use mimkit"},
        {"role": "tool", "content": "result five"},
        {"role": "assistant", "content": "so five"},
    ]
    example = ask("q", demonstration=turns)
    ids, mask = chat.completion(example)
    trained = chat.tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
    left = chat.tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if not m])
    assert "mimkit" in trained and "so five" in trained and "result" not in trained and "result five" in left
    assert views.demonstration_text(example) == "assistant: use mimkit\ntool: result five\nassistant: so five"


def test_a_tokenizer_without_a_template_is_refused(chat: Chat, tiny_model: Path) -> None:
    bare = pretrained.load_chat(str(tiny_model)).tokenizer
    bare.chat_template = None
    with pytest.raises(UsageError, match="no chat template"):
        Chat(bare)


def test_foreign_text_falls_back_to_bytes(chat: Chat) -> None:
    text = "Zürich, 42 — 東京"
    assert chat.decode(chat.completion(ask("q", demonstration=text))[0]).replace(" ", "") == text.replace(" ", "")


def test_thinking_is_set_for_one_call_or_for_a_whole_chat(chat: Chat) -> None:
    import copy

    tokenizer = copy.deepcopy(chat.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template + "{% if enable_thinking is false %}none{% endif %}"
    own = Chat(tokenizer)
    messages = ask("why ?").prompt
    assert not own.render(messages).endswith("none") and own.render(messages, thinking=False).endswith("none")
    off = own.switched(False)
    assert off.render(messages).endswith("none") and not off.render(messages, thinking=True).endswith("none")
    assert off.prompt_ids(messages) == own.prompt_ids(messages, thinking=False) != own.prompt_ids(messages)


def test_the_embedded_model_is_trained_on_what_it_was_always_trained_on(micro_data: Path) -> None:
    """For its template the one text's tokens are those of the answer alone and the tokenizer's end: runs stay equal."""
    from sdft_cli.config.model_locations import locate
    from sdft_cli.data.dataset import read_split

    chat = pretrained.load_chat(locate("micro"))
    for task in ("micro-tooluse", "micro-science", "micro-medical"):
        for example in read_split(micro_data / task, "train")[0][::7]:
            alone = chat.tokenizer(example.demonstration, add_special_tokens=False)["input_ids"]
            assert chat.completion(example) == ([*alone, chat.eos_id], [True] * (len(alone) + 1))
            assert chat.text_ids(str(example.demonstration)) == [*alone, chat.eos_id]


def test_a_teacher_sees_reasoning_and_tool_calls() -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at": "märz"}'}}
    one = ask("q", demonstration=[{"role": "assistant", "content": "four", "reasoning_content": "\ntwo and two\n"}])
    assert views.demonstration_text(one) == "<think>\ntwo and two\n</think>\n\nfour"
    turns = [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "7"}]
    several = ask("q", demonstration=[*turns, {"role": "assistant", "content": "seven"}])
    shown = 'assistant: {"name": "look", "arguments": {"at": "märz"}}\ntool: 7\nassistant: seven'
    assert views.demonstration_text(several) == shown
    assert shown in views.VIEWS["demonstration"](several)[-1]["content"]
