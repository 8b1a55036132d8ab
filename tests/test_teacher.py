"""Teachers: the average tracks, the kinds are what they say, state is restored bit for bit, names decide."""

from pathlib import Path

import pytest
import torch

from sdft_cli import models
from sdft_cli.batching import Row, collate
from sdft_cli.models import Policy
from sdft_cli.recipe import TEACHER_KINDS, Lora, Runtime
from sdft_cli.recipe import Teacher as Settings
from sdft_cli.teacher import Teacher


def load(folder: Path, dtype: str = "float32", rank: int = 0) -> Policy:
    return models.load(str(folder), Runtime(dtype=dtype), Lora(rank=rank))


def make(policy: Policy, **settings: object) -> Teacher:
    return Teacher(policy, Settings(**settings), origin=dict)


def exact(policy: Policy) -> dict[str, torch.Tensor]:
    return {n: p.detach().float() for n, p in policy.model.named_parameters() if p.requires_grad}


def shift(policy: Policy, amount: float) -> None:
    with torch.no_grad():
        for p in policy.model.parameters():
            if p.requires_grad:
                p.add_(amount)


def inputs(policy: Policy):
    row = Row([5, 6, 7], [8, 9, 10], [1.0] * 3)
    return collate([row.student_prompt], [row], policy.chat.pad_id, policy.device)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ema_equals_its_closed_form(tiny_model: Path, dtype: str) -> None:
    """Against a constant shift d, after k steps the average has moved d (1 - (1-a)^k): also where weights are bf16, and
    so have, taken together, the rounded weights that the teacher computes with."""
    policy = load(tiny_model, dtype)
    teacher = make(policy, update_rate=0.01)
    before = {n: v.clone() for n, v in teacher.average.items()}
    theta = {n: v + 0.01 for n, v in before.items()}  # a master in fp32: the student may be rounded, its master not
    for step in range(1, 251):
        teacher.update(step, theta)
    share = 1 - 0.99**250
    moved = torch.cat([(teacher.average[n] - before[n]).flatten() for n in before])
    torch.testing.assert_close(moved.mean().item(), 0.01 * share, rtol=0.01, atol=0)
    held = dict(teacher.copy.named_parameters())  # type: ignore[union-attr]
    for name, value in teacher.average.items():
        torch.testing.assert_close(held[name], value.to(held[name].dtype), rtol=0, atol=0)
    used = torch.cat([(held[n].float() - before[n]).flatten() for n in before])
    torch.testing.assert_close(used.mean().item(), 0.01 * share, rtol=0.01, atol=0)


@pytest.mark.parametrize("rank", [0, 4])
def test_kinds(tiny_model: Path, rank: int) -> None:
    policy = load(tiny_model, rank=rank)
    start = models.hidden_states(policy, inputs(policy)).detach().clone()
    frozen = make(policy, **TEACHER_KINDS["frozen"])
    shift(policy, 0.05)
    frozen.update(1, exact(policy))
    torch.testing.assert_close(frozen.hidden_states(inputs(policy)), start)
    now = models.hidden_states(policy, inputs(policy)).detach()
    assert not torch.allclose(now, start, atol=1e-3)
    frozen.close()
    live = make(policy, **TEACHER_KINDS["live"])
    torch.testing.assert_close(live.hidden_states(inputs(policy)), now)
    periodic = make(policy, update_rate=1.0, update_every=3)
    shift(policy, 0.05)
    periodic.update(2, exact(policy))
    torch.testing.assert_close(periodic.hidden_states(inputs(policy)), now)
    periodic.update(3, exact(policy))
    torch.testing.assert_close(
        periodic.hidden_states(inputs(policy)), models.hidden_states(policy, inputs(policy)).detach()
    )


@pytest.mark.parametrize("rank", [0, 4])
def test_starts_as_the_student_and_stays_when_it_moves(tiny_model: Path, rank: int) -> None:
    """At the start of a later stage the student is no longer the base: the teacher starts from the student."""
    policy = load(tiny_model, rank=rank)
    shift(policy, 0.03)
    teacher = make(policy, update_rate=0.01)
    torch.testing.assert_close(
        teacher.hidden_states(inputs(policy)), models.hidden_states(policy, inputs(policy)).detach()
    )
    trained = [n for n, p in policy.model.named_parameters() if p.requires_grad]
    assert trained and not any("teacher" in n for n in trained)


@pytest.mark.parametrize("rank", [0, 4])
def test_start_base_is_the_runs_first_weights(tiny_model: Path, rank: int) -> None:
    policy, base = load(tiny_model, rank=rank), load(tiny_model, rank=rank)
    shift(policy, 0.03)
    weights = {n: p.detach() for n, p in base.model.named_parameters()}
    teacher = Teacher(policy, Settings(start="base", update_rate=0.0), origin=lambda: weights)
    torch.testing.assert_close(teacher.hidden_states(inputs(policy)), models.hidden_states(base, inputs(base)).detach())


@pytest.mark.parametrize("rank", [0, 4])
def test_restored_bit_for_bit(tiny_model: Path, tmp_path: Path, rank: int) -> None:
    policy = load(tiny_model, rank=rank)
    teacher = make(policy, update_rate=0.3)
    shift(policy, 0.02)
    teacher.update(1, exact(policy))
    want = teacher.hidden_states(inputs(policy)).clone()
    torch.save(teacher.state_dict(), tmp_path / "t.pt")
    teacher.close()
    again = make(policy, update_rate=0.3)
    assert not torch.equal(again.hidden_states(inputs(policy)), want)
    again.load_state_dict(torch.load(tmp_path / "t.pt"))
    assert torch.equal(again.hidden_states(inputs(policy)), want)


def test_a_foreign_state_is_refused(tiny_model: Path) -> None:
    teacher = make(load(tiny_model), update_rate=0.3)
    with pytest.raises(ValueError, match="other parameters"):
        teacher.load_state_dict({"average": {"nobody": torch.zeros(1)}})
