"""Prefetched batches: sampled by the weights that their age says, and the same whatever the threads do."""

from pathlib import Path

import pytest
import torch
from support.row_engine import OlderRowEngine, RowEngine
from support.trainers import make

from sdft_cli.config.recipe import Runtime
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.errors import UsageError
from sdft_cli.models import pretrained
from sdft_cli.training import recipe_checks
from sdft_cli.training.trainer import PhaseTrainer, build_trainer

LEARNING = ["lr=3e-3", "skip_first=0", "max_steps=9"]


def staged(model: Path, data: Path, *sets: str, quiet: tuple[int, ...] = ()) -> PhaseTrainer:
    """A trainer whose engine knows about prefetching, as `train` makes it."""
    made = make(model, data, "sdft", *LEARNING, *sets)
    engine = TransformersEngine(made.policy, made.recipe.engine)
    made.batches.start(engine)
    return build_trainer(made.policy, engine, made.batches, quiet=quiet.__contains__)


def weights(stage: PhaseTrainer) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in stage.policy.model.named_parameters()}


def error(stage: PhaseTrainer, sampled_by: dict[str, torch.Tensor], rows: list) -> float:
    """The greatest difference of the sampled log-probs of ``rows`` from those under the weights ``sampled_by``."""
    now, worst = weights(stage), 0.0
    stage.policy.model.load_state_dict(sampled_by)
    for row in rows:
        with torch.no_grad():
            logits = stage.policy.model(torch.tensor([row.student_prompt + row.completion])).logits[0]
        log_p = logits[len(row.student_prompt) - 1 : -1].log_softmax(-1)
        own = log_p.gather(1, torch.tensor(row.completion)[:, None])[:, 0]
        worst = max(worst, float((own - torch.tensor(row.sampled)).abs().max()))
    stage.policy.model.load_state_dict(now)
    return worst


@pytest.mark.parametrize("lora", [0, 4])
def test_a_batch_was_sampled_by_the_weights_that_its_age_says(tiny_model: Path, micro_data: Path, lora: int) -> None:
    stage = staged(tiny_model, micro_data, "prefetch=2", f"lora.rank={lora}", quiet=(4,))
    history, ages = [], []
    for step in range(9):
        history.append(weights(stage))
        logged = stage.step(step)
        rows, _ = stage.batch(step)
        ages.append(logged["staleness"])
        assert error(stage, history[step - logged["staleness"]], rows) < 1e-4
        if logged["staleness"]:
            assert error(stage, history[step], rows) > 1e-3 and logged["logprob_gap"] > 1e-4
    # at most two are prefetched, and none across the quiet step, after which a batch is sampled when it is needed
    assert ages == [0, 1, 2, 1, 0, 1, 2, 1, 2]
    stage.close()


def test_without_prefetching_no_batch_is_stale(tiny_model: Path, micro_data: Path) -> None:
    stage = staged(tiny_model, micro_data)
    for step in range(3):
        before = weights(stage)
        assert "staleness" not in stage.step(step)
        assert error(stage, before, stage.batch(step)[0]) < 1e-4
    assert stage.engine.sampled is stage.policy  # and there is no second copy of the weights


@pytest.mark.parametrize("kind", [RowEngine, OlderRowEngine])
def test_a_batch_does_not_depend_on_those_it_is_written_with(
    tiny_model: Path, micro_data: Path, kind: type[RowEngine]
) -> None:
    batches = make(tiny_model, micro_data, "grpo", "n=4", "batch=8").batches
    batches.start(kind(pretrained.load(str(tiny_model), Runtime())))
    alone = [[row.completion for row in batches.batch(number).rows] for number in range(4)]
    together = [[row.completion for row in batch.rows] for batch in batches.several(range(1, 4))]
    assert len({tuple(ids) for rows in alone for ids in rows}) == 32  # 4 batches of 8 rows, none like another
    assert (together == alone[1:]) == (kind is RowEngine)
    assert together[0] == alone[1]


def test_the_timing_of_threads_changes_nothing(tiny_model: Path, micro_data: Path) -> None:
    ends = []
    for _ in range(2):
        stage = staged(tiny_model, micro_data, "prefetch=3", "updates=2")
        for step in range(8):
            stage.step(step)
        stage.close()
        ends.append(weights(stage))
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


def test_an_error_in_the_other_thread_is_raised_in_this_one(tiny_model: Path, micro_data: Path) -> None:
    stage = staged(tiny_model, micro_data, "prefetch=1")
    stage.step(0)

    def broken(numbers: range) -> None:
        raise RuntimeError(f"batch {numbers[0]} is broken")

    stage.batches.several = broken
    stage.step(1)  # its batch was prefetched before
    with pytest.raises(RuntimeError, match="batch 2 is broken"):
        stage.step(2)
    stage.close()


def test_a_method_that_does_not_correct_for_staleness_is_refused() -> None:
    flags = {"method": "sdft", "model": "micro", "tasks": ["micro-science"]}
    with pytest.raises(UsageError, match="off-policy"):
        recipe_checks.check_recipe(assemble(None, flags, ["prefetch=1", "importance_cap=none"]))
    recipe_checks.check_recipe(assemble(None, flags, ["prefetch=1"]))
