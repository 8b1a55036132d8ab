"""Families of models: scored as a plain forward pass of each row alone, trained, saved and loaded again; or refused."""

from pathlib import Path

import pytest
from support import architectures, families


@pytest.mark.parametrize("name", families.DOZEN)
def test_a_family_is_scored_as_by_a_plain_forward_pass(
    name: str, tiny_model: Path, micro_data: Path, tmp_path: Path
) -> None:
    outcome = families.check(name, tmp_path, tiny_model, micro_data)
    assert outcome.scored and outcome.sampled and not outcome.refused


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in architectures.names() if name not in families.DOZEN])
def test_every_family_is_scored_right_or_refused(
    name: str, tiny_model: Path, micro_data: Path, tmp_path: Path
) -> None:
    families.check(name, tmp_path, tiny_model, micro_data)
