"""Rows that a model's chat template cannot show, in every command that renders rows: one line, and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import chat_families

from sdft_cli import plugins
from sdft_cli.commands.datasets import show
from sdft_cli.commands.dry_run import dry_run
from sdft_cli.commands.prepare import prepare
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.data.dataset import read_split
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.models.pretrained import load_chat
from sdft_cli.training.completions import describe_demonstrations
from sdft_cli.training.rendered_views import Prompts
from sdft_cli.types import PrepareOptions

SYSTEM = {"role": "system", "content": "be kind"}
REPLY = {"role": "assistant", "content": "four"}
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "map"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {name: chat_families.model(folder / name, name) for name in ("gemma", "tools", "chatml, base")}


def asked(i: int) -> dict[str, Any]:
    return {"role": "user", "content": f"what is {i} and {i * i} and {i * 7} ?"}


def data(folder: Path, every: int, *before: dict[str, Any], **options: Any) -> Path:
    """A dataset in which one training row in ``every`` begins with the turns ``before``."""
    rows = [{"messages": [*(before if i % every == 0 else ()), asked(i), REPLY], "split": "train"} for i in range(20)]
    rows += [{"messages": [asked(i), REPLY], "split": split} for i, split in ((100, "validation"), (101, "test"))]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(["mine"], {"mine": [folder / "rows.jsonl"]}, folder / "data", PrepareOptions(**options))
    return folder / "data"


def recipe(model: Path, folder: Path, *sets: str, method: str = "sft"):
    small = ["sampler.max_new_tokens=8", "evaluation.max_new_tokens=8", "batch=2", "max_steps=1", "warmup_steps=0"]
    flags = {"method": method, "model": str(model), "tasks": ["mine"], "data": str(folder)}
    return assemble(None, flags, [*small, *sets])


def test_a_row_that_the_template_refuses_is_a_bad_row_that_names_the_way_out(models, tmp_path: Path) -> None:
    folder = data(tmp_path, 10, SYSTEM)
    said = "the chat template refuses the messages: System role not supported"
    with pytest.raises(
        UsageError, match=rf"mine/train\.jsonl: row mine-train-1: cannot be rendered: {said} \(2 bad"
    ) as no:
        dry_run(recipe(models["gemma"], folder))
    assert "sdft prepare --merge-system" in no.value.hint
    facts = dry_run(recipe(models["gemma"], folder, "train.on_bad_row=drop")).facts
    assert facts["stages"][0]["rows"]["train"] == 18 and facts["stages"][0]["dropped"] == 2
    assert "mine: 2 bad rows dropped: 2 x cannot be rendered" in facts["notes"]
    with pytest.raises(UsageError, match=f"row mine-train-1: {said}"):
        show(folder, "mine", "train", None, str(models["gemma"]), None)


def test_prepared_with_merge_system_the_same_rows_are_fine(models, tmp_path: Path) -> None:
    folder = data(tmp_path, 1, SYSTEM, merge_system=True)
    text = dry_run(recipe(models["gemma"], folder)).text
    assert "<start_of_turn>user\nbe kind\n\nwhat is 0 and 0 and 0 ?<end_of_turn>" in text
    assert "--- and is trained on:\nfour<end_of_turn>\n" in text


def test_tools_reach_the_template_or_the_row_is_refused(models, tmp_path: Path) -> None:
    turns = [{"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "7"}, REPLY]
    rows = [{"messages": [asked(i), *turns], "tools": [TOOL], "answer": "four"} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(["mine"], {"mine": [tmp_path / "rows.jsonl"]}, tmp_path / "data", PrepareOptions())
    text = dry_run(recipe(models["tools"], tmp_path / "data")).text
    assert f"<|im_start|>system\n{json.dumps(TOOL)}<|im_end|>" in text
    call = '<tool_call>\n{"name": "look", "arguments": {"at": "map"}}\n</tool_call><|im_end|>'
    assert f"--- and is trained on:\n{call} […] four<|im_end|>" in text
    (row,) = show(tmp_path / "data", "mine", "train", None, None, None)
    assert str(row["student"]).startswith(f"[tools]\n{json.dumps([TOOL])}\n[user]")
    assert '{"name": "look", "arguments": {"at": "map"}}' in str(row["demonstration"])
    for split in ("validation", "test", "train"):  # in the order in which they are read
        with pytest.raises(UsageError, match=rf"{split}\.jsonl: row .*the chat template does not show the row's tools"):
            dry_run(recipe(models["chatml, base"], tmp_path / "data", method="sdft"))
        file = tmp_path / "data" / "mine" / f"{split}.jsonl"
        plain = [{k: v for k, v in json.loads(line).items() if k != "tools"} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in plain))


def test_an_end_that_only_the_template_names_is_said_once(models, tmp_path: Path) -> None:
    facts = dry_run(recipe(models["chatml, base"], data(tmp_path, 1))).facts
    assert [note for note in facts["notes"] if "the chat template ends a turn with '<|im_end|>'" in note]
    assert len(facts["notes"]) == 1


def test_an_evaluation_names_the_row_that_the_template_refuses(models, tmp_path: Path) -> None:
    folder = data(tmp_path, 1, SYSTEM)
    rows, _ = read_split(folder / "mine", "train")
    conditions = Conditions("prompt", max_new_tokens=8)
    with pytest.raises(UsageError, match=r"mine: row mine-train-1: cannot be rendered: .*System role not") as no:
        conditions.for_rows(load_chat(str(models["gemma"])), plugins.task("mine", folder), rows)
    assert "--merge-system" in no.value.hint


def test_what_a_student_cannot_write_a_teacher_may_show(models, tmp_path: Path) -> None:
    """Reasoning has no place in Gemma's turn: SFT refuses it, SDFT shows it to the teacher and samples the student."""
    rows = [{"messages": [asked(i), {**REPLY, "reasoning_content": f"hm {i}"}]} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made,) = prepare(
        ["mine"], {"mine": [tmp_path / "rows.jsonl"]}, tmp_path / "data", PrepareOptions(), model=str(models["gemma"])
    )
    assert made["lengths"]["tokens"]["train"]["demonstration"]["max"] > 5
    with pytest.raises(UsageError, match="no place for the demonstration's reasoning"):
        dry_run(recipe(models["gemma"], tmp_path / "data"))
    text = dry_run(recipe(models["gemma"], tmp_path / "data", method="sdft")).text
    assert "<think>\nhm " in text
    examples, _ = read_split(tmp_path / "data" / "mine", "train")
    views = recipe(models["gemma"], tmp_path / "data").views
    assert describe_demonstrations(examples, Prompts(load_chat(str(models["gemma"])), views)) == {}
