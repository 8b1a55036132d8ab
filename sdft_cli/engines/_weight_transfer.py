"""Weights on their way to a vLLM server: through a folder that both sides see, as a model or as an adapter."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from sdft_cli.engines._vllm import memory_folder
from sdft_cli.engines._vllm_api import VllmApi

if TYPE_CHECKING:
    from sdft_cli.models.policy import Policy


class WeightTransfer:
    """Hands ``policy``'s weights to the server behind ``api``, through a temporary folder in ``folder`` (in memory if
    None)."""

    def __init__(self, policy: Policy, api: VllmApi, folder: str | None):
        self.policy, self.api, self.pushes, self.adapter = policy, api, 0, ""
        self.folder = tempfile.TemporaryDirectory(prefix="sdft-weights-", dir=folder or memory_folder())
        Path(self.folder.name).chmod(0o755)  # the server may run as another user

    @property
    def model(self) -> str:
        """The name under which the server has the policy's weights."""
        return self.adapter or self.api.model

    def push(self) -> None:
        """Hand over the weights as they are now; the server then holds them itself, and the files are deleted."""
        self.pushes += 1
        part = Path(self.folder.name) / f"{self.pushes}.part"
        self.policy.save_weights(part)
        whole = part.rename(part.with_suffix(""))  # under its final name a folder is complete
        if self.policy.lora:
            self._replace_adapter(whole)
        else:
            self.api.reload_weights(whole)
        self.api.reset_prefix_cache()
        shutil.rmtree(whole)

    def _replace_adapter(self, folder: Path) -> None:
        """Load the adapter under a name of its own, for vLLM caches adapters by name; then drop the one before it."""
        before, name = self.adapter, f"sdft-{uuid.uuid4().hex[:8]}-{self.pushes}"
        self.api.load_adapter(name, folder)
        self.adapter = name
        if before:
            self.api.unload_adapter(before)

    def close(self) -> None:
        """Take the adapter off the server and delete the folder; may be called twice."""
        if self.adapter:
            name, self.adapter = self.adapter, ""
            self.api.unload_adapter(name)
        self.folder.cleanup()
