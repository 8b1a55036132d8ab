"""Rubrics of a user's own, and the tasks that get one."""

import json
from pathlib import Path

from sdft_cli import plugins
from sdft_cli.commands.prepare import prepare
from sdft_cli.grading.rubrics import KNOWLEDGE, MEDICAL, own_rubric
from sdft_cli.types import Example, PrepareOptions, Task


def row(answer: str) -> Example:
    return Example("x", [{"role": "user", "content": "why ?"}], answer=answer)


def test_a_rubric_of_ones_own_has_the_same_frame_as_ours() -> None:
    own = own_rubric("  It is polite.\n")
    assert "fulfil:\nIt is polite.\n\nCORRECT:" in own.instructions and set(own.verdicts) == {"CORRECT", "INCORRECT"}
    frame = MEDICAL.instructions.partition("Each part stands")[2].partition("\n\n")[0]
    assert frame and frame in own.instructions and frame in KNOWLEDGE.instructions
    assert own_rubric("It is short.") != own


def test_open_answers_of_a_users_own_get_a_rubric(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    texts = [f"answer {i} is a long text about matter number {i} , and it goes on and on" for i in range(20)]
    rows = [{"question": f"what about {i} ?", "answer": text} for i, text in enumerate(texts)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(["open"], {"open": [source]}, tmp_path / "data", PrepareOptions())
    task = plugins.task("open", tmp_path / "data")
    assert task.rubric == KNOWLEDGE and task.grader["name"] == "judge"
    manifest = tmp_path / "data" / "open" / "manifest.json"
    before = json.loads(manifest.read_text())

    def with_rule(**rule: str) -> Task:
        manifest.write_text(json.dumps({**before, "grader": rule}))
        return plugins.task("open", tmp_path / "data")

    chosen = with_rule(name="none", chosen="by the answers")  # as an earlier version wrote it
    assert chosen.rubric == KNOWLEDGE and chosen.grader["name"] == "judge"
    assert with_rule(name="none").rubric is None
    ruled = with_rule(name="contains", rubric="It is polite.")
    assert ruled.rubric == own_rubric("It is polite.") and "unless a judge is named" in ruled.note
    assert ruled.grade("x y", row("x")).value == 1.0
