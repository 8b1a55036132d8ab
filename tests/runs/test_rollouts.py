"""Stored completions of a teacher: read as they were written, or refused in one line."""

from pathlib import Path

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.runs.rollouts import StoredRollouts
from sdft_cli.types import Rollout

ROLLOUTS = [Rollout([1, 2], [3], [-0.5], "stop"), Rollout([4], [], [], "length", 1, "teacher", 2)]


@pytest.fixture
def stored(tmp_path: Path) -> StoredRollouts:
    stored = StoredRollouts(tmp_path / "rollouts" / "01-a-0.jsonl")
    assert stored.read(2) is None
    stored.write(ROLLOUTS)
    return stored


def test_they_are_read_as_they_were_written(stored: StoredRollouts) -> None:
    assert stored.read(2) == ROLLOUTS


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[3]", "[3.5]", "jsonl:1: ids.0: Input should be a valid integer"),
        ("[3]", "[-3]", "jsonl:1: ids.0: Input should be greater than or equal to 0"),
        ("[3]", "[3, 3]", "jsonl:1: logprobs: not as many as ids"),
        ('"stop"', "3", "jsonl:1: finish: Input should be a valid string"),
        ('"ids"', '"id"', "jsonl:1: ids: Field required"),
        ('{"prompt_ids": [4]', '{"prompt_ids": [4', "jsonl:2: not valid JSON"),
        ('{"prompt_ids": [4]', "\n", "jsonl:3: not valid JSON"),
    ],
)
def test_a_broken_line_is_named(old: str, new: str, says: str, stored: StoredRollouts) -> None:
    text = stored.path.read_text()
    assert old in text
    stored.path.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        stored.read(2)
    assert says in caught.value.message and "the teacher then writes its completions again" in caught.value.hint


def test_a_file_that_was_cut_off_between_two_lines_is_refused(stored: StoredRollouts) -> None:
    stored.path.write_text(stored.path.read_text().splitlines(keepends=True)[0])
    with pytest.raises(UsageError, match="1 completions, and the phase needs 2"):
        stored.read(2)
