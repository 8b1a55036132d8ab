"""An adapter added to the weights of its model: W + (alpha / r) B A, summed in fp32 and rounded once.

One that was trained on a base of 4 bits is added to the whole weights that were quantised: that is nearer to the model
they come from, but not, to the digit, the model that was trained.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from sdft_cli.models import adapters, pretrained, quantization, weights
from sdft_cli.models.adapters import STUDENT, TEACHER
from sdft_cli.models.base_models import Base, base_of
from sdft_cli.models.policy import Policy, list_end_of_turn
from sdft_cli.models.protocols import AdapterLayer


@torch.no_grad()
def merge(policy: Policy) -> Policy:
    """The same model without adapters, the student's having been added to its weights in place.

    ``policy`` itself is used up: subtracting the adapter again would not give the old weights back. One layer at a time
    is held in fp32. The result is in the precision of the base; that of a base of 4 bits is in the host's memory.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if policy.peft is None:
        return policy
    if quantization.is_four_bit(policy.core):
        policy = _on_whole_base(policy)
    assert policy.peft is not None
    if TEACHER in policy.peft.peft_config:
        policy.peft.delete_adapter(TEACHER)
    for module in policy.core.modules():
        if isinstance(module, BaseTunerLayer):
            _merge_layer(module)
    core = policy.peft.unload()
    core.requires_grad_(False)
    return replace(policy, core=core, peft=None)


def _on_whole_base(policy: Policy) -> Policy:
    """The student's adapter on the base as its files have it, in the host's memory: beside the model in training there
    may be no room on the device."""
    found = base_of(policy.name)
    base = Base(found.location, getattr(policy.core.config, "_commit_hash", None) or found.revision)
    core, _ = weights.read(policy.name, base, pretrained.load_config(policy.name), weights.Form(policy.dtype))
    list_end_of_turn(core, policy.chat)
    with tempfile.TemporaryDirectory(prefix="sdft-adapter-") as folder:
        policy.save_weights(Path(folder))
        adapted = adapters.attach(core, folder, None)
    return replace(policy, core=core, peft=adapted, device=torch.device("cpu"))


def _merge_layer(layer: AdapterLayer) -> None:
    """`peft` computes the sum in the precision of the base, so for the sum that is fp32."""
    base = layer.get_base_layer()
    kept = {name: parameter.dtype for name, parameter in base.named_parameters(recurse=False)}
    base.float()
    layer.merge(safe_merge=False, adapter_names=[STUDENT])
    for name, dtype in kept.items():
        parameter = getattr(base, name)
        parameter.data = parameter.data.to(dtype)
