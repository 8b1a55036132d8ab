"""Lines below a sweep's table."""

from __future__ import annotations

from typing import Any

import pytest

from sdft_cli.reporting.sweep_table import lines


def record(*validation: float, error: float) -> Any:
    rates = [10.0 ** (k - 6) for k in range(len(validation))]
    best = max(range(len(validation)), key=lambda i: validation[i])
    points = [
        {"method": "sdft", "settings": {"train.lr": rate}, "seed": 0, "chosen": not i, "name": str(i)}
        | {"result": {"validation": value}}
        for i, (rate, value) in enumerate(zip(rates, validation, strict=True))
    ]
    top = {"settings": points[best]["settings"], "validation": validation[best], "standard_error": error}
    choice = {"settings": points[0]["settings"], "validation": validation[0], "best": top, "over_seeds": {"seeds": [0]}}
    return {"rule": "-", "chosen": {"sdft": choice}, "points": points, "failed": {}}


@pytest.mark.parametrize(
    ("validation", "error", "alike"),
    [((0.5, 0.6, 0.55), 0.1, True), ((0.4, 0.6, 0.55), 0.1, False), ((0.5,), 0.1, False)],
)
def test_points_that_cannot_be_told_apart_are_said(validation: tuple[float, ...], error: float, alike: bool) -> None:
    said = [line for line in lines(record(*validation, error=error)) if "within one standard error" in line]
    text = "all 3 points of sdft are within one standard error of the best: more validation rows could tell them apart"
    assert said == [text] * alike
