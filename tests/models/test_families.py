"""Families of models: scored as a plain forward pass of each row alone, trained, saved and loaded again; or refused."""

from pathlib import Path

import pytest
from support import architecture_page, architectures, families


@pytest.mark.parametrize("name", families.DOZEN)
def test_a_family_is_scored_as_by_a_plain_forward_pass(
    name: str, tiny_model: Path, micro_data: Path, tmp_path: Path
) -> None:
    outcome = families.check(name, tmp_path, tiny_model, micro_data)
    assert not outcome.refused and outcome == architecture_page.outcomes()[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in architectures.names() if name not in families.DOZEN])
def test_every_family_is_scored_right_or_refused(name: str, tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    assert families.check(name, tmp_path, tiny_model, micro_data) == architecture_page.outcomes()[name]


def test_the_page_has_every_family_and_counts_them() -> None:
    found = architecture_page.outcomes()
    assert list(found) == sorted(architectures.names(), key=str.lower)
    assert architecture_page.page(found.values()) == architecture_page.PAGE.read_text(encoding="utf-8")
    right = [each for each in found.values() if not each.refused]
    assert len(right) > 50 and all(each.model and each.rows and each.attention and each.sampled for each in right)
