"""Packed sequences against the same ones alone and padded: hidden states, losses, gradients."""

from pathlib import Path

import pytest
import torch
from support.architectures import ARCHITECTURES, random_model

from sdft_cli.config.recipe import Lora, Runtime
from sdft_cli.engines._ladder import Ladder
from sdft_cli.models import packing, pretrained, scoring
from sdft_cli.models.batching import Layout, Row, collate, group_rows, targets
from sdft_cli.models.policy import Policy


def rows(seed: int = 0) -> list[Row]:
    """Rows of very different lengths, some tokens of weight 0."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for prompt, written in ((3, 9), (20, 1), (1, 30), (7, 7), (2, 2)):
        ids = torch.randint(0, 1200, (prompt + written,), generator=draw).tolist()
        weights = [0.0 if t % 4 == 1 else 0.1 + 0.01 * t for t in range(written)]
        made.append(Row(ids[:prompt], ids[prompt:], weights))
    return made


def scored(policy: Policy, group: list[Row], packed: bool) -> torch.Tensor:
    inputs = collate([r.student_prompt for r in group], group, policy.chat.pad_id, policy.device, packed)
    assert (inputs.lengths is not None) == packed
    return policy.hidden_states(inputs)


def check_packed(policy: Policy) -> None:
    """Hidden states and every gradient of a weighted loss, against each row alone."""
    group = rows()
    known = targets(group, policy.device)
    results = []
    for packed, groups in ((True, [group]), (False, [group]), (False, [[row] for row in group])):
        policy.model.zero_grad(set_to_none=True)
        hidden_NH = torch.cat([scored(policy, g, packed) for g in groups])
        logits_NV = policy.head().logits(hidden_NH)
        loss = (known.weights_N * torch.nn.functional.cross_entropy(logits_NV, known.tokens_N, reduction="none")).sum()
        loss.backward()
        grads = {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}
        results.append((hidden_NH.detach(), grads))
    for hidden_NH, grads in results[:2]:
        torch.testing.assert_close(hidden_NH, results[2][0], atol=1e-4, rtol=1e-4)
        assert grads.keys() == results[2][1].keys() and grads
        for name, want in results[2][1].items():
            scale = float(want.abs().max())
            torch.testing.assert_close(grads[name], want, atol=2e-5 * max(scale, 1e-3), rtol=1e-4, msg=name)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_equals_alone(name: str, tiny_model: Path, tmp_path: Path) -> None:
    policy = pretrained.load(str(random_model(name, tmp_path, tiny_model)), Runtime())
    assert policy.layout.packed == ARCHITECTURES[name][2]
    if policy.layout.packed:
        check_packed(policy)
    else:
        assert policy.core.config._attn_implementation != packing.NAME


def test_packed_equals_alone_under_lora_and_with_checkpointing(tiny_model: Path) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(), Lora(rank=4))
    with torch.no_grad():
        for name, param in policy.model.named_parameters():
            if "lora_B" in name:
                param.normal_(0, 0.1)
    check_packed(policy)
    plain = pretrained.load(str(tiny_model), Runtime())
    plain.core.gradient_checkpointing_enable({"use_reentrant": False})
    plain.model.train()
    check_packed(plain)


def test_a_saved_model_has_no_trace_of_packing(tiny_model: Path, tmp_path: Path) -> None:
    policy = pretrained.load(str(tiny_model), Runtime())
    assert policy.layout.packed
    policy.save(tmp_path / "saved")
    assert packing.NAME not in (tmp_path / "saved" / "config.json").read_text()


def test_attention_masks_still_work(tiny_model: Path) -> None:
    """Others, such as the harness, give the model padded batches with a two-dimensional mask."""
    policy = pretrained.load(str(tiny_model), Runtime())
    ids = torch.randint(0, 1200, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    with torch.no_grad():
        both = policy.model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits
        alone = policy.model(input_ids=ids[1:, 4:]).logits
    torch.testing.assert_close(both[1:, 4:], alone, atol=1e-4, rtol=1e-4)


def test_groups_keep_to_the_budget_packed_and_padded() -> None:
    each = rows()
    for kind, cost in (("packed", lambda g: sum(r.length for r in g)), ("padded", lambda g: len(g) * g[-1].length)):
        groups = group_rows(each, 40, Layout(kind))
        assert sorted(id(r) for g in groups for r in g) == sorted(map(id, each))
        assert all(len(g) == 1 or cost(g) <= 40 for g in groups)
        lengths = [r.length for g in groups for r in g]
        assert lengths == sorted(lengths)
    assert len(group_rows(each, 100, Layout("packed"))) < len(group_rows(each, 100))


def test_rows_that_a_batch_changes_are_scored_one_by_one(tiny_model: Path) -> None:
    """A toy, as no family of transformers does so: what is embedded depends on how many rows there are."""
    core = pretrained.load(str(tiny_model), Runtime()).core
    core.get_input_embeddings().register_forward_hook(lambda _, inputs, embedded: embedded * len(embedded))
    core.set_attn_implementation("eager")
    found = scoring.examine(core)
    assert found.layout == Layout("row by row") and "one row at a time" in found.text
    assert [len(group) for group in group_rows(rows(), 1000, found.layout)] == [1] * 5


def test_rows_beyond_the_limit_are_alone() -> None:
    lengths = [[row.length for row in group] for group in group_rows(rows(), 1000, Layout("packed", 20))]
    assert lengths == [[4, 12, 14], [21], [31]]


def test_tokens_that_were_never_trained_do_not_decide(tiny_model: Path) -> None:
    """Many vocabularies begin with special tokens that no text has. In bf16 the logits behind them may be mostly
    rounding, as in SmolLM2, whose rows would then be padded and scored with eager attention."""
    core = pretrained.load(str(tiny_model), Runtime()).core
    with torch.no_grad():
        core.get_input_embeddings().weight[2:32] = torch.nan  # the trial pads with 1
    core.set_attn_implementation("sdpa")
    assert scoring.examine(core).layout.packed


def test_a_device_that_has_failed_is_no_misfit(tiny_model: Path) -> None:
    """After an illegal access nothing on the device can be trusted, least of all a slower way to compute."""

    def fails(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    policy = pretrained.load(str(tiny_model), Runtime())
    policy.core.set_attn_implementation("sdpa")
    hook = policy.core.get_input_embeddings().register_forward_pre_hook(fails)
    with pytest.raises(torch.AcceleratorError):
        scoring.examine(policy.core)
    with pytest.raises(torch.AcceleratorError):
        Ladder(policy)
    hook.remove()
