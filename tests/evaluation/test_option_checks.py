"""Options of `sdft eval` that nothing measured here uses are refused by their names, before a model loads."""

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
