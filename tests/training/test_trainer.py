"""One training step against an independent path: plain logits, autograd, torch's AdamW."""

import copy
from pathlib import Path

import pytest
import torch
from support.trainers import stage
from torch.nn import functional

from sdft_cli.config.recipe import Train
from sdft_cli.losses.token_weights import reduce_weights, skip_first
from sdft_cli.models.batching import Row, group_rows
from sdft_cli.models.views import VIEWS
from sdft_cli.training.batches import draw, seed_of, steps_in


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean"])
@pytest.mark.parametrize(
    ("method", "divergence"), [("sdft", "forward_kl"), ("sdft", "reverse_kl"), ("sdft", "jsd"), ("sft", "forward_kl")]
)
def test_a_step_equals_plain_logits_and_autograd(
    tiny_model: Path, micro_data: Path, method: str, reduction: str, divergence: str
) -> None:
    ours = stage(tiny_model, micro_data, method, f"reduction={reduction}", f"divergence={divergence}", "skip_first=2")
    plain = copy.deepcopy(ours.policy.model)
    rows, _ = ours.batch(0)  # the same sampled completions for both paths
    loss, _ = ours.gradients(rows, 0)
    per_row = []
    for row in rows:
        logits = plain(torch.tensor([row.student_prompt + row.completion])).logits[0, len(row.student_prompt) - 1 : -1]
        tokens = torch.tensor(row.completion)
        if method == "sft":
            each = functional.cross_entropy(logits, tokens, reduction="none")
        else:
            with torch.no_grad():  # the teacher is the student of this step under its own view
                start = len(row.teacher_prompt or []) - 1
                t = plain(torch.tensor([(row.teacher_prompt or []) + row.completion])).logits[0, start:-1]
            p, q = logits.log_softmax(-1), t.log_softmax(-1)
            m = ((p.exp() + q.exp()) / 2).log()
            forward, reverse = (q.exp() * (q - p)).sum(-1), (p.exp() * (p - q)).sum(-1)
            jsd = ((q.exp() * (q - m)).sum(-1) + (p.exp() * (p - m)).sum(-1)) / 2
            each = {"forward_kl": forward, "reverse_kl": reverse, "jsd": jsd}[divergence]
        per_row.append(each[2:])
    kept = [r for r in per_row if len(r)]
    want = torch.cat(kept).mean() if reduction == "token_mean" else torch.stack([r.mean() for r in kept]).mean()
    want.backward()
    assert loss == pytest.approx(want.item(), rel=1e-4, abs=1e-7)
    theirs = dict(plain.named_parameters())
    for name, param in ours.policy.model.named_parameters():
        torch.testing.assert_close(param.grad, theirs[name].grad, rtol=2e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean"])
def test_micro_batches_change_nothing(tiny_model: Path, micro_data: Path, reduction: str) -> None:
    gradients = []
    for budget in (1, 100, 100_000):
        s = stage(tiny_model, micro_data, "sdft", f"reduction={reduction}", f"micro_batch_tokens={budget}")
        loss, _ = s.gradients(s.batch(0)[0], 0)
        gradients.append((loss, torch.cat([p.grad.flatten() for p in s.policy.model.parameters()])))
    for loss, gradient in gradients[1:]:
        assert loss == pytest.approx(gradients[0][0], rel=1e-5)
        torch.testing.assert_close(gradient, gradients[0][1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
def test_same_view_and_live_teacher_give_zero(tiny_model: Path, micro_data: Path, divergence: str) -> None:
    s = stage(tiny_model, micro_data, "sdft", "teacher=live", "views.teacher=prompt", f"divergence={divergence}")
    loss, _ = s.gradients(s.batch(0)[0], 0)
    assert abs(loss) < 1e-6
    assert all(p.grad.abs().max() < 1e-6 for p in s.policy.model.parameters())


def test_lora_trains_only_its_adapter(tiny_model: Path, micro_data: Path) -> None:
    s = stage(tiny_model, micro_data, "sdft", "rank=4")
    before = {n: p.clone() for n, p in s.policy.model.named_parameters()}
    s.step(0), s.step(1)
    moved = {n for n, p in s.policy.model.named_parameters() if not torch.equal(p, before[n])}
    assert any(".default." in n for n in moved)
    assert all("lora_" in n for n in moved)
    assert any(".teacher." in n for n in moved)  # the shadow adapter follows


def test_bf16_weights_learn_through_fp32_masters(tiny_model: Path, micro_data: Path) -> None:
    """At lr 1e-5 a bf16 weight of size 0.3 would not move at all in one step; its master adds the steps up."""
    s = stage(tiny_model, micro_data, "sft", "runtime.dtype=bfloat16", "lr=1e-5", "schedule=constant")
    name, master = next((n, m) for n, m in s.learner.optimizer.masters.items() if "mlp" in n)
    start = master.clone()
    for step in range(4):
        s.step(step)
    drift = (master - start).abs()
    assert drift.max() > 2e-5 and master.dtype == torch.float32
    torch.testing.assert_close(s.learner.optimizer.params[name], master.to(torch.bfloat16))


def test_the_step_reports_what_a_person_needs(tiny_model: Path, micro_data: Path) -> None:
    facts = stage(tiny_model, micro_data).step(0)
    assert {"loss", "kl", "entropy", "completion_tokens", "tokens_per_second", "lr", "grad_norm"} <= set(facts)
    assert facts["logprob_gap"] < 1e-4  # sampler and trainer are one model
    assert 0 < facts["completion_tokens"] <= 8


def test_the_gap_between_sampler_and_trainer_is_that_of_equal_distributions(tiny_model: Path, micro_data: Path) -> None:
    """It is rounding where samples are as old as the weights, and not known where they are of something else."""
    warm = ["sampler.temperature=0.7", "objective.logits_temperature=0.7"]
    assert stage(tiny_model, micro_data, "sdft", *warm).step(0)["logprob_gap"] < 1e-4
    for other in ("sampler.temperature=0.7", "sampler.top_p=0.9", "sampler.top_k=5", "objective.logits_temperature=2"):
        assert stage(tiny_model, micro_data, "sdft", other).step(0)["logprob_gap"] is None
    assert stage(tiny_model, micro_data, "sft").step(0)["logprob_gap"] is None
    twice = stage(tiny_model, micro_data, "sdft", "train.updates=2", "objective.importance_cap=2")
    rows = [twice.step(step) for step in range(4)]
    assert [row["staleness"] for row in rows] == [0, 1, 0, 1]
    assert all((row["logprob_gap"] < 1e-4) == (row["staleness"] == 0) for row in rows)


def test_views_follow_the_paper(tiny_model: Path, micro_data: Path) -> None:
    s = stage(tiny_model, micro_data)
    example = s.batches.examples[0]
    shown = VIEWS["demonstration"](example)
    assert shown is not None
    question, demonstration = example.prompt[-1]["content"], example.demonstration
    assert shown[-1]["content"] == (
        f"{question}\n\nThis is an example for a response to the question:\n{demonstration}\n\n"
        "Now answer with a response of your own, including the thinking process:"
    )
    rows, _ = s.batch(0)
    assert all(r.teacher_prompt and len(r.teacher_prompt) > len(r.student_prompt) for r in rows)


def test_skip_first_and_reductions() -> None:
    mask = torch.tensor([[True] * 5, [True, True, False, True, True]])
    assert skip_first(mask, 3).tolist() == [[False] * 3 + [True] * 2, [False] * 4 + [True]]
    masks = [torch.tensor([1, 1, 1, 0]).bool(), torch.tensor([1]).bool(), torch.tensor([0, 0]).bool()]
    token = reduce_weights(masks, "token_mean")
    assert torch.cat(token).sum().item() == pytest.approx(1) and token[0][0].item() == pytest.approx(1 / 4)
    sequence = reduce_weights(masks, "sequence_mean")
    assert [w.sum().item() for w in sequence] == pytest.approx([0.5, 0.5, 0])


def test_draws_are_epochs_of_permutations_and_need_no_state() -> None:
    first = [i for step in range(5) for i in draw(10, 4, step, 7)]
    assert sorted(first[:10]) == sorted(first[10:20]) == list(range(10))
    assert first[:10] != first[10:20]
    assert draw(10, 4, 3, 7) == first[12:16] and draw(10, 4, 3, 8) != first[12:16]
    assert seed_of(1, "a") != seed_of(1, "b")
    assert steps_in(Train(epochs=2, batch=32), 100) == 7
    assert steps_in(Train(max_steps=3), 100) == 3


def test_micro_batches_keep_within_the_budget() -> None:
    rows = [Row([0] * n, [0], [1.0]) for n in (30, 5, 7, 90, 6)] + [Row([0], [0], [0.0])]
    groups = group_rows(rows, 40)
    assert sorted(r.length for g in groups for r in g) == [6, 7, 8, 31, 91]  # a row without weight is left out
    assert all(len(g) * max(r.length for r in g) <= 40 for g in groups if len(g) > 1)
