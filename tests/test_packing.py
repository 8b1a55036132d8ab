"""Sequences laid end to end against the same ones alone and padded: hidden states, losses, gradients."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sdft_cli import models, packing
from sdft_cli.batching import Row, collate, micro_batches, targets
from sdft_cli.models import Policy
from sdft_cli.recipe import Lora, Runtime

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1203,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 1200,
    "bos_token_id": None,
    "eos_token_id": 1202,
}
#: Architectures by the name of their config, what is special about each, and whether they may be packed.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "llama": ("LlamaConfig", {}, True),
    "qwen2, one head a key": ("Qwen2Config", {"num_key_value_heads": 4}, True),
    "qwen3, norms on queries and keys": ("Qwen3Config", {"head_dim": 16}, True),
    "mistral, full attention": ("MistralConfig", {"sliding_window": None}, True),
    "mistral, sliding window": ("MistralConfig", {"sliding_window": 4}, False),
    "qwen3, some layers sliding": (
        "Qwen3Config",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        False,
    ),
    "gemma, norms of 1 + weight": ("GemmaConfig", {"head_dim": 16}, True),
    "gemma2, capped scores": ("Gemma2Config", {"head_dim": 16, "sliding_window": 4}, False),
    "gpt2, learnt positions": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}, True),
}


def random_model(name: str, folder: Path, tokenizer: Path) -> Path:
    """A model of that architecture with random weights and the tiny model's tokenizer."""
    import transformers
    from transformers import AutoModelForCausalLM

    kind, special, _ = ARCHITECTURES[name]
    shared = {} if kind == "GPT2Config" else SMALL
    config = getattr(transformers, kind)(**{**shared, "vocab_size": 1203, "eos_token_id": 1202, **special})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tokenizer / file).is_file():
            shutil.copy(tokenizer / file, folder / file)
    return folder


def rows(seed: int = 0) -> list[Row]:
    """Rows of very different lengths, some tokens of weight 0."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for prompt, written in ((3, 9), (20, 1), (1, 30), (7, 7), (2, 2)):
        ids = torch.randint(0, 1200, (prompt + written,), generator=draw).tolist()
        weights = [0.0 if t % 4 == 1 else 0.1 + 0.01 * t for t in range(written)]
        found.append(Row(ids[:prompt], ids[prompt:], weights))
    return found


def scored(policy: Policy, group: list[Row], packed: bool) -> torch.Tensor:
    inputs = collate([r.student_prompt for r in group], group, policy.chat.pad_id, policy.device, packed)
    assert (inputs.lengths is not None) == packed
    return models.hidden_states(policy, inputs)


def check_packed(policy: Policy) -> None:
    """Hidden states and every gradient of a weighted loss; each row alone is the independent path."""
    group = rows()
    known = targets(group, policy.device)
    results = []
    for packed, groups in ((True, [group]), (False, [group]), (False, [[row] for row in group])):
        policy.model.zero_grad(set_to_none=True)
        hidden_NH = torch.cat([scored(policy, g, packed) for g in groups])
        logits_NV = models.head(policy).logits(hidden_NH)
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
def test_packed_is_alone(name: str, tiny_model: Path, tmp_path: Path) -> None:
    policy = models.load(str(random_model(name, tmp_path, tiny_model)), Runtime())
    assert policy.packed == ARCHITECTURES[name][2]
    if policy.packed:
        check_packed(policy)
    else:
        assert policy.core.config._attn_implementation != packing.NAME


def test_packed_is_alone_under_lora_and_with_checkpointing(tiny_model: Path) -> None:
    policy = models.load(str(tiny_model), Runtime(), Lora(rank=4))
    with torch.no_grad():
        for name, param in policy.model.named_parameters():
            if "lora_B" in name:
                param.normal_(0, 0.1)
    check_packed(policy)
    plain = models.load(str(tiny_model), Runtime())
    plain.core.gradient_checkpointing_enable({"use_reentrant": False})
    plain.model.train()
    check_packed(plain)


def test_a_saved_model_knows_nothing_of_packing(tiny_model: Path, tmp_path: Path) -> None:
    policy = models.load(str(tiny_model), Runtime())
    assert policy.packed
    models.save(policy, tmp_path / "saved")
    assert packing.NAME not in (tmp_path / "saved" / "config.json").read_text()


def test_a_mask_still_counts_outside(tiny_model: Path) -> None:
    """What others do with the model, such as the harness: padded batches with a two-dimensional mask."""
    policy = models.load(str(tiny_model), Runtime())
    ids = torch.randint(0, 1200, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    with torch.no_grad():
        both = policy.model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits
        alone = policy.model(input_ids=ids[1:, 4:]).logits
    torch.testing.assert_close(both[1:, 4:], alone, atol=1e-5, rtol=1e-5)


def test_groups_hold_the_budget_packed_and_padded() -> None:
    each = rows()
    for packed, cost in ((True, lambda g: sum(r.length for r in g)), (False, lambda g: len(g) * g[-1].length)):
        groups = micro_batches(each, 40, packed)
        assert sorted(id(r) for g in groups for r in g) == sorted(map(id, each))
        assert all(len(g) == 1 or cost(g) <= 40 for g in groups)
        lengths = [r.length for g in groups for r in g]
        assert lengths == sorted(lengths)
    assert len(micro_batches(each, 100, packed=True)) < len(micro_batches(each, 100))
