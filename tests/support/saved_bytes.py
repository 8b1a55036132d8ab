"""What autograd keeps of a pass."""

import torch

from sdft_cli.models.batching import Row, collate
from sdft_cli.models.policy import Policy


def saved_bytes(policy: Policy, batch: list[Row]) -> int:
    """What autograd keeps of one forward pass besides the weights."""
    weights = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    seen: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.train_mode(False)
        policy.hidden_states(collate([r.student_prompt for r in batch], batch, 0, policy.device))
    return sum(size for size, _ in seen.values())
