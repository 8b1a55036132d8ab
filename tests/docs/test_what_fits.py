"""``docs/what-fits.md`` says what the memory model says."""

import pytest
from support import what_fits_page
from support.pages import read


def test_the_table_of_7b_is_what_is_predicted() -> None:
    assert what_fits_page.section("Qwen2.5-7B") in read("docs/what-fits.md")


@pytest.mark.slow
def test_the_page_is_what_is_written_of_every_model() -> None:
    assert read("docs/what-fits.md") == what_fits_page.page()
