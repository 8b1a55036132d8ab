"""Batches written while others train: by the weights they claim, corrected for, and the same after a resume."""

from pathlib import Path

import pytest
import torch
from support.trainers import make

from sdft_cli.config.layers import assemble
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.errors import UsageError
from sdft_cli.training import preflight
from sdft_cli.training.trainer import PhaseTrainer, build_trainer

LEARNING = ["lr=3e-3", "skip_first=0", "max_steps=9"]


def staged(model: Path, data: Path, *sets: str, quiet: tuple[int, ...] = ()) -> PhaseTrainer:
    """A stage whose engine knows of ``ahead``, as `train` makes it."""
    made = make(model, data, "sdft", *LEARNING, *sets)
    engine = TransformersEngine(made.policy, made.recipe.engine)
    made.batches.start(engine)
    return build_trainer(made.policy, engine, made.batches, quiet=quiet.__contains__)


def weights(stage: PhaseTrainer) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in stage.policy.model.named_parameters()}


def off(stage: PhaseTrainer, held: dict[str, torch.Tensor], rows: list) -> float:
    """How far the sampled log-probs of ``rows`` are from those under the weights ``held``, at most."""
    now, worst = weights(stage), 0.0
    stage.policy.model.load_state_dict(held)
    for row in rows:
        with torch.no_grad():
            logits = stage.policy.model(torch.tensor([row.student_prompt + row.completion])).logits[0]
        log_p = logits[len(row.student_prompt) - 1 : -1].log_softmax(-1)
        own = log_p.gather(1, torch.tensor(row.completion)[:, None])[:, 0]
        worst = max(worst, float((own - torch.tensor(row.sampled)).abs().max()))
    stage.policy.model.load_state_dict(now)
    return worst


@pytest.mark.parametrize("lora", [0, 4])
def test_a_batch_is_of_the_weights_that_wrote_it(tiny_model: Path, micro_data: Path, lora: int) -> None:
    """The age that a row tells is that of the weights under which its log-probs are what was sampled."""
    stage = staged(tiny_model, micro_data, "prefetch=2", f"lora.rank={lora}", quiet=(4,))
    history, ages = [], []
    for step in range(9):
        history.append(weights(stage))
        told = stage.step(step)
        rows, _ = stage.batch(step)
        ages.append(told["staleness"])
        assert off(stage, history[step - told["staleness"]], rows) < 1e-4
        if told["staleness"]:
            assert off(stage, history[step], rows) > 1e-3 and told["logprob_gap"] > 1e-4
    # two ahead at most; nothing is written across the quiet step, after which a batch is written when it is needed
    assert ages == [0, 1, 2, 1, 0, 1, 2, 1, 2]
    stage.close()


def test_without_it_nothing_is_old(tiny_model: Path, micro_data: Path) -> None:
    stage = staged(tiny_model, micro_data)
    for step in range(3):
        before = weights(stage)
        assert "staleness" not in stage.step(step)
        assert off(stage, before, stage.batch(step)[0]) < 1e-4
    assert stage.engine.sampled is stage.policy  # and there is no second copy of the weights


def test_threads_decide_nothing(tiny_model: Path, micro_data: Path) -> None:
    ends = []
    for _ in range(2):
        stage = staged(tiny_model, micro_data, "prefetch=3", "updates=2")
        for step in range(8):
            stage.step(step)
        stage.close()
        ends.append(weights(stage))
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


def test_what_fails_in_the_other_thread_is_raised_here(tiny_model: Path, micro_data: Path) -> None:
    stage = staged(tiny_model, micro_data, "prefetch=1")
    stage.step(0)

    def broken(numbers: range) -> None:
        raise RuntimeError(f"batch {numbers[0]} is broken")

    stage.batches.several = broken
    stage.step(1)  # was written before
    with pytest.raises(RuntimeError, match="batch 2 is broken"):
        stage.step(2)
    stage.close()


def test_a_method_that_corrects_for_nothing_is_refused() -> None:
    flags = {"method": "sdft", "model": "micro", "tasks": ["micro-science"]}
    with pytest.raises(UsageError, match="off-policy"):
        preflight.check_recipe(assemble(None, flags, ["prefetch=1", "importance_cap=none"]))
    preflight.check_recipe(assemble(None, flags, ["prefetch=1"]))
