"""An adapter added to the weights of its model: W + (alpha / r) B A, summed in fp32 and rounded once."""

from __future__ import annotations

from dataclasses import replace

import torch

from sdft_cli.models.adapters import STUDENT, TEACHER
from sdft_cli.models.policy import Policy
from sdft_cli.models.protocols import AdapterLayer


@torch.no_grad()
def merge(policy: Policy) -> Policy:
    """The same model without adapters, the student's having been added to its weights in place.

    ``policy`` itself is used up: subtracting the adapter again would not give the old weights back. One layer at a time
    is held in fp32. The result is in the precision of the base.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if policy.peft is None:
        return policy
    if TEACHER in policy.peft.peft_config:
        policy.peft.delete_adapter(TEACHER)
    for module in policy.core.modules():
        if isinstance(module, BaseTunerLayer):
            _merge_layer(module)
    core = policy.peft.unload()
    core.requires_grad_(False)
    return replace(policy, core=core, peft=None)


def _merge_layer(layer: AdapterLayer) -> None:
    """`peft` computes the sum in the precision of the base, so for the sum that is fp32."""
    base = layer.get_base_layer()
    kept = {name: parameter.dtype for name, parameter in base.named_parameters(recurse=False)}
    base.float()
    layer.merge(safe_merge=False, adapter_names=[STUDENT])
    for name, dtype in kept.items():
        parameter = getattr(base, name)
        parameter.data = parameter.data.to(dtype)
