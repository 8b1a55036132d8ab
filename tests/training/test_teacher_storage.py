"""Where a teacher's average is stored."""

from pathlib import Path

import pytest
import torch

from sdft_cli.config.recipe import Recipe, Runtime, Teacher
from sdft_cli.models import pretrained
from sdft_cli.training import teacher_storage
from sdft_cli.training.teacher_storage import choose_storage


def test_an_average_that_does_not_fit_is_stored_on_the_host(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = pretrained.load(str(tiny_model), Runtime(dtype="bfloat16"))

    def stored(free: int, **teacher: str) -> str:
        monkeypatch.setattr(teacher_storage, "free_bytes", lambda _: free)
        settings = choose_storage(policy, Recipe(teacher=Teacher(**teacher)))
        assert settings is not None
        return settings.storage

    assert choose_storage(policy, Recipe()) is None
    assert stored(1) == "device"  # a CPU's memory is the host's
    policy.device = torch.device("cuda")
    assert (stored(1), stored(10**9), stored(1, storage="half")) == ("cpu", "device", "half")
