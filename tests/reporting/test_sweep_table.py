"""Lines below a sweep's table."""

from __future__ import annotations

from typing import Any

import pytest

from sdft_cli.reporting.sweep_table import cells, lines


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


@pytest.mark.parametrize(
    ("cut", "exact", "heads"),
    [(0.0, 0.5, []), (0.25, 0.5, ["cut"]), (0.0, 0.25, ["exact"]), (0.25, 0.25, ["cut", "exact"]), (None, None, [])],
)
def test_a_point_that_cut_or_is_not_exact_shows_it(cut: float | None, exact: float | None, heads: list[str]) -> None:
    metrics = {"average_accuracy": 0.5, "backward_transfer": None, "prior_change": None}
    result = {"validation": 0.5, "stages": [0.5], "side": {}, "cut": cut, "exact": exact, "metrics": metrics}
    point = {"method": "sdft", "settings": {"train.lr": 1e-5}, "seed": 0, "chosen": True, "name": "0"}
    made: Any = {
        "grid": {"sdft": {"train.lr": [1e-5]}},
        "points": [{**point, "result": {**result, "steps": 4, "seconds": 1.0}}],
    }
    named, (row,) = cells(made)
    assert [head for head in named if head in ("cut", "exact")] == heads
    assert len(row) == len(named)
    assert [float(row[named.index(head)]) for head in heads] == [{"cut": cut, "exact": exact}[head] for head in heads]
