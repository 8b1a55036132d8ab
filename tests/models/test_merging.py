"""Merging: W + (alpha / r) B A to the bit that fp32 allows, rounded once, and the same function as before."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.adapters import foreign_adapter, logits
from support.architectures import random_model

from sdft_cli.config.recipe import Lora, Runtime
from sdft_cli.models import pretrained
from sdft_cli.models.merging import merge
from sdft_cli.models.policy import Policy


def adapted(model: Path, dtype: str, **lora: object) -> Policy:
    torch.manual_seed(2)
    policy = pretrained.load(str(model), Runtime(dtype=dtype, device="cpu"), Lora(**{"rank": 4, "alpha": 0.5, **lora}))
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return policy


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_weights_are_the_sum_in_fp64_rounded_once(tiny_model: Path, tmp_path: Path, dtype: str) -> None:
    policy = adapted(tiny_model, dtype)
    parts = {name: tensor.double() for name, tensor in policy.model.state_dict().items()}
    merge(policy).save(tmp_path)
    merged, base = load_file(tmp_path / "model.safetensors"), load_file(tiny_model / "model.safetensors")
    assert merged.keys() == base.keys() and not (tmp_path / "adapter_config.json").exists()
    moved, precision = 0, getattr(torch, dtype)
    for name, weight in merged.items():
        assert weight.dtype == precision
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        if (a := parts.get(f"{layer}.lora_A.default.weight")) is None:
            assert torch.equal(weight, base[name].to(precision)), name
            continue
        moved += 1
        exact = base[name].to(precision).double() + 0.5 / 4 * parts[f"{layer}.lora_B.default.weight"] @ a
        # fp32 sums err in their last bits; in bf16 that moves a number which lies between two, and half a step is right
        step = torch.finfo(precision).eps * exact.abs() * 0.5
        assert ((weight.double() - exact).abs() <= step * 1.01 + 1e-5).all(), name
    assert moved == 14


@pytest.mark.parametrize("name", ["llama", "gpt2, learnt positions"])
def test_merging_changes_no_logits(name: str, tiny_model: Path, tmp_path: Path) -> None:
    policy = adapted(random_model(name, tmp_path / "base", tiny_model), "float32")
    before = logits(policy.model)
    plain = merge(policy)
    assert plain.peft is None and not any("lora" in n for n, _ in plain.core.named_parameters())
    plain.save(tmp_path)
    again = pretrained.load(str(tmp_path), Runtime(dtype="float32", device="cpu"))
    assert torch.equal(logits(again.model), logits(plain.model))
    torch.testing.assert_close(logits(again.model), before, atol=1e-4, rtol=1e-4)
    assert (before - logits(pretrained.load(str(tmp_path / "base"), Runtime()).model)).abs().max() > 0.1


def test_an_adapter_that_learned_nothing_changes_no_bit(tiny_model: Path, tmp_path: Path) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(dtype="bfloat16", device="cpu"), Lora(rank=4))
    merge(policy).save(tmp_path)
    merged, base = load_file(tmp_path / "model.safetensors"), load_file(tiny_model / "model.safetensors")
    assert all(torch.equal(merged[name], base[name].bfloat16()) for name in base)


def test_the_teachers_adapter_is_not_merged(tiny_model: Path, tmp_path: Path) -> None:
    policy = adapted(tiny_model, "float32")
    before = logits(policy.model)
    assert policy.peft is not None
    policy.peft.add_adapter("teacher", policy.peft.peft_config["default"])
    torch.testing.assert_close(logits(merge(policy).model), before, atol=1e-4, rtol=1e-4)


def test_dora_is_merged_as_it_computes(tiny_model: Path, tmp_path: Path) -> None:
    folder = foreign_adapter(tiny_model, tmp_path / "dora", target_modules="all-linear", use_dora=True)
    policy = pretrained.load(str(folder), Runtime(dtype="float32", device="cpu"))
    before = logits(policy.model)
    torch.testing.assert_close(logits(merge(policy).model), before, atol=1e-4, rtol=1e-4)
