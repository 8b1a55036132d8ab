"""Micro-batches and gradient checkpointing that fit into memory: the gradients stay the same."""

from pathlib import Path

import pytest
import torch
from support.saved_bytes import saved_bytes
from support.trainers import stage

from sdft_cli.config.recipe import Recipe, Runtime, Train, build
from sdft_cli.models import pretrained
from sdft_cli.models.batching import Row, collate, group_rows
from sdft_cli.models.policy import Policy
from sdft_cli.models.scoring import Scoring
from sdft_cli.training import micro_batches
from sdft_cli.training.learner import Learner
from sdft_cli.training.micro_batches import DoesNotFit, MicroBatchBudget

TOKENS = Recipe().train.micro_batch_budget


def gradients(policy: Policy) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}


def rows(count: int = 6, length: int = 20) -> list[Row]:
    return [
        Row([5] * (length // 2), [7] * (length - length // 2), [1.0] * (length - length // 2)) for _ in range(count)
    ]


# --- out of memory --------------------------------------------------------------------------------------------------


class Full:
    """Makes the trainer's pass over a micro-batch run out of memory where ``when`` says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, when) -> None:
        self.when, self.calls, self.tokens = when, 0, []
        real = Learner.loss

        def loss(stage: Learner, group: list[Row], *rest):
            self.calls += 1
            self.tokens.append(len(group) * max(r.length for r in group))
            result = real(stage, group, *rest)
            if self.when(self, group):
                result.loss.backward()  # leaves half of the batch's gradients behind
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")
            return result

        monkeypatch.setattr(Learner, "loss", loss)


@pytest.mark.parametrize("sets", [(), ("lora.rank=4", "lora.dropout=0.0")])
def test_a_step_that_ran_out_of_memory_is_repeated_in_halves(
    tiny_model: Path, micro_data: Path, monkeypatch: pytest.MonkeyPatch, sets: tuple[str, ...]
) -> None:
    calm = stage(tiny_model, micro_data, "sdft", *sets)
    calm.policy.scoring = Scoring()
    plain = [calm.step(0), calm.step(1)]
    assert "memory" not in plain[0] and plain[0].keys() == plain[1].keys()
    full = Full(monkeypatch, lambda self, _: self.calls == 1)
    hit = stage(tiny_model, micro_data, "sdft", *sets)
    hit.policy.scoring = Scoring()
    logged = [hit.step(0), hit.step(1)]
    assert "out of memory" in logged[0]["memory"] and "\n" not in logged[0]["memory"] and "memory" not in logged[1]
    assert logged[0]["micro_batch_tokens"] == hit.learner.budget.tokens <= full.tokens[0] // 2
    assert max(full.tokens[1:]) <= hit.learner.budget.tokens  # for all later steps
    for one, other in zip(plain, logged, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    theirs = dict(calm.policy.model.named_parameters())
    # Adam divides by a gradient's size, so noise in tiny ones shows
    for name, param in hit.policy.model.named_parameters():
        torch.testing.assert_close(param, theirs[name], rtol=1e-3, atol=2e-4, msg=name)


def test_rows_that_do_not_fit_alone_are_checkpointed_then_refused(
    tiny_model: Path, micro_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def single(self: Full, group: list[Row]) -> bool:
        return not hit.policy.core.is_gradient_checkpointing

    Full(monkeypatch, single)
    hit = stage(tiny_model, micro_data, "sdft")
    logged = hit.step(0)
    assert hit.learner.budget.recomputes and "gradient checkpointing is on" in logged["memory"]
    hit.step(1)
    Full(monkeypatch, lambda *_: True)
    with pytest.raises(DoesNotFit, match="a row of") as error:
        hit.step(2)
    assert "lora.rank" in error.value.hint and not gradients(hit.policy) and not hit.policy.model.training
    off = stage(tiny_model, micro_data, "sdft", "gradient_checkpointing=off")
    with pytest.raises(DoesNotFit):
        off.step(0)
    assert not off.policy.core.is_gradient_checkpointing


# --- predicted ------------------------------------------------------------------------------------------------------


def fit(policy: Policy, monkeypatch: pytest.MonkeyPatch, free: int | None, **train: object) -> MicroBatchBudget:
    monkeypatch.setattr(micro_batches, "free_bytes", lambda _: free)
    return MicroBatchBudget(policy, Recipe(train=Train(**train)))


def test_auto_takes_the_budget_that_is_predicted_to_fit(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(dtype="float32"))
    many = rows(64, 100)
    free = fit(policy, monkeypatch, None)
    assert free.run(many, lambda budget: budget, lambda: None) == TOKENS and not free.changes()
    need = free.needs(many)
    tight = fit(policy, monkeypatch, int(need * 0.6))
    budget = tight.run(many, lambda budget: budget, lambda: None)
    assert 100 < budget < TOKENS and tight.needs(many) <= need * 0.6 and not tight.recomputes
    assert "predicted" in tight.changes()["memory"]
    tiny = fit(policy, monkeypatch, 1)
    tiny.run(many, lambda budget: budget, lambda: None)
    assert tiny.recomputes and all(len(g) == 1 for g in group_rows(many, tiny.tokens))
    chosen = fit(policy, monkeypatch, 1, micro_batch_tokens=500, gradient_checkpointing="off")
    assert chosen.run(many, lambda budget: budget, lambda: None) == 500 and not chosen.recomputes  # as configured


def test_moments_of_a_resumed_run_are_not_counted_twice(
    tiny_model: Path, micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are part neither of what is free nor of what is still needed."""
    first = stage(tiny_model, micro_data, "sdft")
    first.step(0)
    first.save(tmp_path / "model", tmp_path)
    held = first.learner.optimizer.held()
    moments = 2 * 4 * sum(p.numel() for p in first.learner.optimizer.params.values())
    assert moments <= held <= moments + 4 * len(first.learner.optimizer.params)  # and a step count for each
    free = 10**9
    monkeypatch.setattr(micro_batches, "free_bytes", lambda _: free)
    fresh = stage(tiny_model, micro_data, "sdft")
    fresh.step(0)
    free -= held
    again = stage(tiny_model, micro_data, "sdft")
    again.restore(tmp_path)
    again.step(1)
    assert fresh.learner.budget.room == again.learner.budget.room == 10**9


def test_micro_batch_tokens_is_auto_or_a_number() -> None:
    assert build([{}]).train.micro_batch_tokens == "auto"
    assert build([{"train": {"micro_batch_tokens": 7}}]).train.micro_batch_tokens == 7
    for wrong in (0, -5, "much", 1.5):
        with pytest.raises(Exception, match=r"train.micro_batch_tokens: must be a number of tokens from 1, or 'auto'"):
            build([{"train": {"micro_batch_tokens": wrong}}])


# --- gradient checkpointing -----------------------------------------------------------------------------------------


def hidden_states(policy: Policy, batch: list[Row]) -> torch.Tensor:
    policy.train_mode(False)
    return policy.hidden_states(collate([r.student_prompt for r in batch], batch, 0, policy.device))


@pytest.mark.parametrize("sets", [(), ("lora.rank=4", "lora.dropout=0.3")])
def test_checkpointing_gives_equal_gradients_for_less_memory(
    tiny_model: Path, micro_data: Path, sets: tuple[str, ...]
) -> None:
    """With an adapter's dropout as well: what is made again drops the same out."""
    results = {}
    for how in ("off", "on"):
        torch.manual_seed(0)
        s = stage(tiny_model, micro_data, "sdft", f"gradient_checkpointing={how}", *sets)
        for name, param in s.policy.model.named_parameters():
            if "lora_B" in name:  # it starts at 0, and A has no gradient then
                torch.nn.init.normal_(param.data, generator=torch.Generator().manual_seed(1))
        loss, _ = s.gradients(s.batch(0)[0], 0)
        assert not s.policy.model.training
        results[how] = (loss, gradients(s.policy), saved_bytes(s.policy, rows()))
        assert s.policy.core.is_gradient_checkpointing == (how == "on")
    assert results["on"][0] == results["off"][0]
    assert results["on"][1].keys() == results["off"][1].keys()
    for name, gradient in results["on"][1].items():
        assert torch.equal(gradient, results["off"][1][name]), name
    assert results["on"][2] < 0.4 * results["off"][2]


def test_checkpointing_leaves_the_rest_as_in_evaluation(tiny_model: Path) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(dtype="float32"))
    policy.gradient_checkpointing(True)
    policy.train_mode(False)
    on = [m for m in policy.model.modules() if m.training]
    assert on and not any(isinstance(m, torch.nn.Dropout | torch.nn.Linear) for m in on)
    assert not any(m.self_attn.training for m in policy.model.modules() if hasattr(m, "self_attn"))
    policy.model.eval()
    policy.gradient_checkpointing(False)
    policy.train_mode(False)
    assert not any(m.training for m in policy.model.modules())
