"""What `sdft eval` prints of completions beside an accuracy."""

from __future__ import annotations

from typing import Any

import pytest

from sdft_cli.evaluation.printing import print_scores
from sdft_cli.evaluation.summaries import part_of, summarize, summarize_suite


def item(i: int, value: float, finish: str, exact: bool | None) -> Any:
    record = {"id": str(i), "value": value, "extracted": None, "why": "", "completion": "", "prompt": "", "answer": ""}
    return record | {"tokens": 9, "finish": finish} | ({} if exact is None else {"exact": exact})


RAMBLES = [item(i, float(i < 3), "length" if i < 2 else "stop", i == 2) for i in range(4)]
ENDS = [item(i, float(i < 3), "stop", i < 3) for i in range(4)]


def printed(capsys: pytest.CaptureFixture[str], **scores: Any) -> list[str]:
    print_scores({"tasks": {}, "suite": None, "settings": {}, "model": "m", **scores})
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()[1:]]


def test_a_line_that_is_silent_means_that_none_was_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, tasks={"mine": summarize(ENDS)}) == [
        "mine                   0.750  [0.301, 0.954]  n 4  9.0 tokens"
    ]


def test_cut_and_exact_have_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, tasks={"mine": {**summarize(RAMBLES), "ood": summarize(RAMBLES)}})
    assert lines[1:3] == [
        "  cut                  0.500  of the completions, at the limit of new tokens",
        "  exact                0.250  the answer or the demonstration, nothing else",
    ]
    assert lines[4].startswith("    cut ")
    assert max(map(len, lines)) <= 80


def test_what_was_not_recorded_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    old = {key: value for key, value in summarize(ENDS).items() if key not in ("cut", "exact")}
    assert printed(capsys, tasks={"mine": old})[1].startswith("  cut                  not recorded")


def test_a_suite_says_what_was_cut_and_has_no_exact_answers(capsys: pytest.CaptureFixture[str]) -> None:
    suite, _ = summarize_suite("s", {"one": part_of(RAMBLES), "two": part_of(ENDS)})
    assert (suite["cut"], suite["exact"], suite["parts"]["two"]["exact"]) == (0.25, None, None)
    whole, one, two = printed(capsys, suite=suite)
    assert whole.endswith("cut 0.250")
    assert one.endswith("cut 0.500")
    assert two.endswith("9.0 tokens")
    choices, _ = summarize_suite("h", {"one": part_of([item(0, 1.0, "choice", None)])})
    assert choices["cut"] is None  # nothing was written, so nothing could be cut
