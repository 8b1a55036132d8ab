"""Where noisy learning curves reach a level: by hand, and against scipy's isotonic regression."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from sdft_cli.stats.crossings import Crossing, crossing, monotone


def at(values: list[float], level: float) -> float | None:
    """The place on the monotone curve of ``values`` where ``level`` is reached, in points."""
    found = crossing(monotone(values), level)
    return None if found is None else found.after + found.beyond


def test_the_monotone_curve_is_scipys_isotonic_regression():
    draw = random.Random(0)
    for length in (1, 2, 3, 9, 40):
        values = [i / length + draw.gauss(0, 0.5) for i in range(length)]
        weights = [draw.choice((1, 5, 64)) for _ in values]
        assert monotone(values) == pytest.approx(isotonic_regression(values).x)
        assert monotone(values, weights) == pytest.approx(isotonic_regression(values, weights=weights).x)


@pytest.mark.parametrize(
    ("name", "values", "level", "place"),
    [
        ("rising", [0.0, 0.2, 0.6, 0.8], 0.5, 1.75),
        ("rising, at a point", [0.0, 0.25, 0.5, 0.75], 0.5, 2.0),
        ("noisy: the dip pulls the point before it below the level", [0.0, 0.5, 0.3, 0.8], 0.5, 2.25),
        ("a lucky point is not enough", [0.1, 0.7, 0.1, 0.1, 0.5], 0.7, None),
        ("never reached", [0.1, 0.2, 0.4], 0.41, None),
        ("reached at the start", [0.5, 0.6, 0.9], 0.4, 0.0),
        ("the start is the level", [0.5, 0.6, 0.9], 0.5, 0.0),
        ("a plateau below the level", [0.0, 0.5, 0.5, 0.5, 1.0], 0.75, 3.5),
        ("a plateau at the level is reached at its beginning", [0.0, 0.5, 0.5, 0.5], 0.5, 1.0),
        ("falling again: it holds 0.5 on average", [0.0, 0.8, 0.6, 0.1], 0.5, 1.0),
        ("falling again: it does not hold 0.6", [0.0, 0.8, 0.6, 0.1], 0.6, None),
        ("always falling", [0.6, 0.4, 0.2], 0.5, None),
    ],
)
def test_crossings_by_hand(name, values, level, place):
    assert at(values, level) == (None if place is None else pytest.approx(place)), name


def test_rounding_does_not_hide_a_level_that_is_reached():
    thirds = [0.0, 1 / 3 + 1 / 3 - 1 / 3, 0.1 + 0.2]
    assert at(thirds, 0.3 + 2e-17) is not None and crossing([0.0, 0.3 - 1e-12], 0.3) == Crossing(0, 1.0)


@pytest.mark.parametrize(("top", "slope"), [(0.9, 15), (0.7, 15), (0.7, 40)])
def test_on_average_a_level_is_read_near_the_step_where_it_is_truly_reached(top, slope):
    """Learning curves of 200 steps with 9 evaluations, each on 64 rows."""
    steps, rng = np.arange(0.0, 201.0, 25.0), np.random.default_rng(0)
    true = 0.05 + (top - 0.05) / (1 + np.exp((80 - steps) / slope))
    for share, near in ((0.5, 3), (0.75, 5), (0.9, 10)):
        level = true[0] + share * (top - true[0])
        found = [crossing(monotone((rng.binomial(64, true) / 64).tolist()), level) for _ in range(400)]
        read = [place.read(steps.tolist()) for place in found if place]
        assert np.mean(read) == pytest.approx(crossing(true.tolist(), level).read(steps.tolist()), abs=near)


def test_another_quantity_is_read_between_the_same_two_points():
    assert Crossing(1, 0.25).read([9.0, 0.0, -0.4, 7.0]) == pytest.approx(-0.1)
    assert Crossing(2, 0.0).read([9.0, 0.0, -0.4]) == -0.4
