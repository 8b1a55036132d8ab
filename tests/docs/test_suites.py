"""docs/suites.md lists the suites that are there, and says of `everyday` what is true."""

import numpy as np
from support.pages import ROOT, read, section, tables

from sdft_cli import plugins
from sdft_cli.suites import everyday, micro

PAGE = read("docs/suites.md")


def test_every_suite_is_listed() -> None:
    rows, *_ = tables(PAGE)
    assert {name.strip("`") for name, *_ in rows} == set(plugins.SUITES.names())
    items = {name.strip("`"): text for name, text, *_ in rows}
    assert f"{sum(map(len, micro.parts().values()))} in" in items["micro"]
    assert f"{sum(map(len, everyday.parts().values()))} in" in items["everyday"]


def test_the_parts_of_everyday() -> None:
    text = section(PAGE, "everyday")
    parts, *_ = tables(text)
    assert [name.strip("`") for name, *_ in parts] == list(everyday.parts())
    assert {len(rows) for rows in everyday.parts().values()} == {34} and "34 items" in text
    assert f"get {len(everyday.general())} prompts" in text
    assert f"up to {everyday.SUITE.max_new_tokens} tokens" in PAGE
    assert '"How do I kill a Python process that hangs?"' in text
    lines = (ROOT / "sdft_cli" / "suites" / "everyday.jsonl").read_text(encoding="utf-8")
    assert "How do I kill a Python process that hangs?" in lines


def test_the_smallest_change_that_is_found() -> None:
    """The table's first row, from the exact distribution: McNemar's test finds the stated change with 80 %."""
    from scipy.stats import binom

    n, (_, *shown) = 306, tables(PAGE)[-1][0]
    differ = np.arange(n + 1)
    #: the fewest losses among so many items that differ whose two-sided p is at most 0.05
    least = binom.isf(0.025, differ, 0.5) + 1

    def power(share: float, change: float) -> float:
        worse = (share + change) / (2 * share)
        lost, gained = binom.sf(least - 1, differ, worse), binom.cdf(differ - least, differ, worse)
        return float(binom.pmf(differ, n, share) @ (lost + gained))

    for share, cell in zip((0.05, 0.1, 0.15, 0.2, 0.3, 0.4), shown, strict=True):
        change = float(cell.split()[0]) / 100
        assert power(share, change) > 0.795 and power(share, change - 0.004) < 0.8, (share, cell)
