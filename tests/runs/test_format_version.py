"""Run folders of another format version are refused by every command that opens one, in one line with a hint."""

import json
from pathlib import Path

import pytest
from support.run_folder import make_run

from sdft_cli.errors import UsageError
from sdft_cli.runs import results
from sdft_cli.runs.folder import Run
from sdft_cli.runs.format_version import FORMAT

OLDER, NEWER, BROKEN = None, json.dumps({"format": FORMAT + 1}), "{}"
SAYS = {
    OLDER: f"was written by an older version of sdft, whose run folders had no format version; this version reads "
    f"format {FORMAT}",
    NEWER: f"has format {FORMAT + 1}; this version reads format {FORMAT}",
    BROKEN: "run.json names no format version",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def other_format(folder: Path, text: str | None) -> None:
    if text is None:
        (folder / "run.json").unlink()
    else:
        (folder / "run.json").write_text(text)


@pytest.mark.parametrize("text", SAYS, ids=["older", "newer", "broken"])
def test_what_is_not_of_this_format_is_refused(folder: Path, text: str | None) -> None:
    Run.open(folder)
    results.load_run(folder)
    other_format(folder, text)
    for read in (Run.open, results.load_run):
        with pytest.raises(UsageError) as caught:
            read(folder)
        assert SAYS[text] in caught.value.message and "\n" not in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--resume", "--out", "run"],
        ["train", "--continue", "run", "--tasks", "micro-tooluse"],
        ["eval", "run"],
        ["report", "run"],
        ["compare", "run", "run"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_every_command_that_opens_a_run_refuses_an_older_one(sdft, tmp_path: Path, words: list[str]) -> None:
    other_format(make_run(tmp_path / "run"), OLDER)
    code, out, err = sdft(*words)
    assert code == 2 and not out
    assert "error: run was written by an older version of sdft" in err and "\nhint: train it again" in err
