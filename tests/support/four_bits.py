"""For tests of bases that are held in 4 bits, which need the extra ``memory``: ``pip install -e '.[dev,memory]'``.

`make test` does without it, so these tests are skipped there; run them as ``pytest -k four_bit -rs`` where it is.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from sdft_cli.config.recipe import Lora, Runtime
from sdft_cli.models import pretrained
from sdft_cli.models.policy import Policy

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="the extra `memory` (bitsandbytes) is not installed"
)


def load(model: Path, bits: int, **lora: object) -> Policy:
    """With an adapter that changes the model, its weights drawn by name's order: the same for every base."""
    section = Lora(**{"rank": 4, "alpha": 8.0, "bits": bits, **lora})
    policy = pretrained.load(str(model), Runtime(dtype="float32", device="cpu"), section)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return policy


def dequantized(policy: Policy) -> dict[str, torch.Tensor]:
    """The weights of the layers in 4 bits as bitsandbytes gives them back, by the names that they have without `peft`.

    A `transformers.pytorch_utils.Conv1D` keeps its weights the other way round.
    """
    from bitsandbytes.functional import dequantize_4bit

    found = {}
    for name, module in policy.core.named_modules():
        if type(module).__name__ == "Linear4bit" and hasattr(module, "compute_dtype"):
            weight = dequantize_4bit(module.weight.data, module.weight.quant_state).float()
            turned = module.source_cls.__name__ == "Conv1D"
            found[name.replace(".base_layer", "")] = weight.T if turned else weight
    return found


def reference(model: Path, four_bit: Policy, **lora: object) -> Policy:
    """The same model in fp32, its weights those that ``four_bit`` computes with: products are torch's own."""
    policy, weights = load(model, 16, **lora), dequantized(four_bit)
    modules = {name.replace(".base_layer", ""): module for name, module in policy.core.named_modules()}
    with torch.no_grad():
        for name, weight in weights.items():
            modules[name] = getattr(modules[name], "base_layer", modules[name])
            modules[name].weight.copy_(weight)
    return policy
