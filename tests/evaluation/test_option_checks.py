"""Options of `sdft eval` that nothing measured here uses are refused by their names, before a model loads."""

from pathlib import Path

import pytest

UNUSED = {
    "--data data": "no task is measured here",
    "--max-new-tokens 3": "no task is measured here",
    "--also oracle": "no task is measured here",
    "--judge big": "no task is measured here",
    "--base micro": "--also kl",
    "--benchmarks folder": "EleutherAI harness",
    "--harness-args num_fewshot=3": "EleutherAI harness",
    "--harness-args max_length=9": "EleutherAI harness",
    "--allow-code-execution": "EleutherAI harness",
    "--judge big --tasks micro-tooluse": "needs a task with a rubric, and micro-tooluse has none",
    "--base micro --also oracle --tasks micro-tooluse": "--also kl",
}


@pytest.mark.parametrize("words", UNUSED)
def test_an_option_without_anything_to_act_on_is_refused(words: str, sdft) -> None:
    assert sdft("prepare", "--tasks", "micro-tooluse")[0] == 0
    code, out, err = sdft("eval", "micro", *words.split())
    assert (code, out) == (2, "") and f"error: {words.split()[0]} " in err and UNUSED[words] in err


@pytest.mark.parametrize(
    "command", ["eval micro --tasks sums", "train --tasks sums --out run", "train --tasks sums --dry-run"]
)
def test_a_grader_that_cannot_run_here_is_found_first(command: str, sdft, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the extra, for a dataset that was prepared on another."""
    from sdft_cli.grading import mathematics

    rows = "".join(f'{{"prompt": "what is {n} + 1 ?", "completion": "{n + 1}"}}\n' for n in range(40))
    Path("sums.jsonl").write_text(rows)
    assert sdft("prepare", "--source", "sums=sums.jsonl", "--columns", "grader=math")[0] == 0
    monkeypatch.setattr(mathematics, "_LIBRARIES", ("no_such_library",))
    code, out, err = sdft(*command.split())
    assert (code, out) == (2, "") and "error: grader 'math' needs math-verify" in err and "sdft-cli[math]" in err
    assert not Path("run").exists()
