"""A ``--set`` that changes nothing is said, and only that."""

import pytest

from sdft_cli.config.idle_settings import idle
from sdft_cli.config.overrides import leaves, parse_sets
from sdft_cli.config.recipe_layers import assemble

#: --set → the reason that is given under the defaults of the method.
IDLE = {
    ("sdft", "lora.alpha=8"): "lora.rank is 0",
    ("sdft", "objective.beta=0.2"): "objective.divergence is not jsd",
    ("sdft", "engine.memory_share=0.5"): "the engine transformers does not use it",
    ("sdft", "num_fewshot=3"): "no suite of the EleutherAI harness",
    ("sft", "teacher.update_rate=0.5"): "nothing in this recipe asks a teacher",
    ("sft", "sampler.temperature=0.5"): "nothing is sampled",
    ("sft", "objective.divergence=jsd"): "objective.target is token",
}
USED = [
    "lora.rank=8 lora.alpha=8",
    "divergence=jsd beta=0.2",
    "guards.enabled=false",
    "epochs=2",
    "train.lr=1",
    "top_k=5",
]


def lines(method: str, *sets: str) -> list[str]:
    recipe = assemble(None, {"method": method, "model": "org/model"}, list(sets))
    return list(idle(recipe, dict(leaves(parse_sets(list(sets))))))


@pytest.mark.parametrize(("method", "text"), IDLE)
def test_a_setting_that_changes_nothing_is_named_with_the_reason(method: str, text: str) -> None:
    (line,) = lines(method, text)
    assert text.partition("=")[0].rpartition(".")[2] in line and IDLE[method, text] in line


@pytest.mark.parametrize("sets", USED)
def test_one_that_changes_something_is_not(sets: str) -> None:
    assert lines("sdft", *sets.split()) == []


def test_the_command_says_it(sdft) -> None:
    assert sdft("prepare", "--tasks", "micro-tooluse")[0] == 0
    code, _, err = sdft("train", "--tasks", "micro-tooluse", "--set", "lora.alpha=8", "--dry-run")
    assert code == 0 and "note: --set lora.alpha changes nothing: lora.rank is 0" in err
