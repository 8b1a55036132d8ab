"""Figures draw the numbers of the runs, as read back from their lines, markers and texts."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from support.run_folder import FORGETS, KEEPS, TASKS, make_run

from sdft_cli.reporting import curves, drawing, scatter
from sdft_cli.reporting.estimates import seed_accuracy
from sdft_cli.reporting.gain_shares import shares
from sdft_cli.reporting.groups import groups_of
from sdft_cli.runs import results


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [
        results.load_run(make_run(root / f"{method}-{seed}", method, rates, items=20, seed=seed))
        for method, rates, seeds in (("sdft", KEEPS, (0, 1)), ("sft", FORGETS, (0,)))
        for seed in seeds
    ]


def markers(axis):
    """Every marker with bars: x, y, and the ends of its vertical bar."""
    points = []
    for container in axis.containers:
        (x,), (y,) = container.lines[0].get_data()
        bars = [segment for line in container.lines[2] for segment in line.get_segments()]
        upright = [sorted(p[1] for p in segment) for segment in bars if segment[0][0] == segment[1][0]]
        points.append((float(x), float(y), upright[0] if upright else None))
    return points


def test_accuracies_are_marked_at_the_ends_of_stages_with_their_intervals(runs):
    figure = curves.accuracy_curves(groups_of(runs))
    assert [axis.get_title(loc="left") for axis in figure.axes] == [*TASKS, "prior suite: micro"]
    for j, axis in enumerate(figure.axes[:3]):
        points = markers(axis)
        sft = runs[2]
        for k, at in enumerate([0, 100, 200, 300]):
            assert (at, pytest.approx(sft.matrix[k][j]), pytest.approx(sft.intervals[k][j])) in points
            mean = seed_accuracy([run.matrix[k][j] for run in runs[:2]])
            assert (at, pytest.approx(mean["value"]), pytest.approx(mean["interval"])) in points


def test_figure_3_draws_shares_of_the_best_gain(runs):
    figure = curves.sequence(groups_of(runs))
    of_runs = shares(runs)
    points = {(x, round(y, 9)) for x, y, _ in markers(figure.axes[1])}
    expected = {(at, round(v, 9)) for k, at in enumerate([0, 100, 200, 300]) for v in of_runs[2][k] if v is not None}
    assert expected <= points and (0, 0.0) in expected
    assert max(v for run in of_runs for row in run for v in row if v is not None) == pytest.approx(1.0)


def test_a_footnote_stays_within_the_width_of_one_panel(runs):
    figure = curves.sequence(groups_of(runs)[:1])
    (foot,) = (text for text in figure.texts if "base model" in text.get_text())
    figure.draw_without_rendering()
    assert "\n" in foot.get_text() and foot.get_window_extent().x1 <= figure.bbox.x1


def test_without_any_gain_there_is_no_figure_3(tmp_path):
    """Lines of a task that nobody learned are not defined, and an empty figure says nothing."""
    run = results.load_run(make_run(tmp_path / "run", "sdft", KEEPS, items=20))
    assert curves.has_gain(groups_of([run]))
    flat = replace(run, matrix=[run.matrix[0]] * len(run.matrix))
    assert not curves.has_gain(groups_of([flat]))


def test_the_mean_of_seeds_is_a_line_and_each_seed_a_thin_one(runs):
    group = groups_of(runs)[0]
    figure = curves.training_curves([group])
    assert [(axis.get_title(loc="left"), axis.get_ylabel()) for axis in figure.axes] == [
        ("Loss", "as the method defines it"),
        ("KL(teacher ‖ student)", "nats per token"),
        ("Entropy of the student", "nats per token"),
        ("Completion length", "tokens"),
    ]
    thin, other, mean = (line for line in figure.axes[0].lines if len(line.get_xdata()) == 30)
    assert thin.get_linewidth() == other.get_linewidth() < mean.get_linewidth()
    losses = [[row["loss"] for row in run.steps] for run in group.runs]
    assert list(mean.get_ydata()) == pytest.approx([sum(pair) / 2 for pair in zip(*losses, strict=True)])


def test_each_divergence_is_drawn_under_its_own_name(tmp_path):
    """A method that scores sampled tokens alone has no KL(teacher ‖ student), and its plot shows none."""
    folder = make_run(tmp_path / "run", "rlsd", items=6)
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    sampled = {"kl": None, "reverse_kl": 0.25, "divergence": 0.5}
    path.write_text("".join(json.dumps({**row, **(sampled if row["kind"] == "step" else {})}) + "\n" for row in rows))
    axes = curves.training_curves(groups_of([results.load_run(folder)])).axes
    values = {axis.get_title(loc="left"): set(axis.lines[0].get_ydata()) for axis in axes}
    assert values["KL(student ‖ teacher), estimated from samples"] == {0.25}
    assert values["Divergence that the method minimises"] == {0.5} and "KL(teacher ‖ student)" not in values


def test_the_heat_map_shows_accuracy_and_change_since_learned(runs):
    run = runs[2]
    (axis,) = scatter.forgetting(groups_of([run])).axes
    texts = [text.get_text() for text in axis.texts]
    assert len(texts) == 4 * 4
    now, learned = run.matrix[3][0], run.matrix[1][0]
    assert texts[12] == f"{now:.2f}\n{now - learned:+.2f}".replace("-", "−")
    assert texts[14] == f"{run.matrix[3][2]:.2f}"  # trained in this stage: nothing to forget yet
    assert texts[15] == f"{run.prior[3]:.2f}\n{run.prior[3] - run.prior[0]:+.2f}".replace("-", "−")


def test_the_front_holds_the_ends_that_no_other_beats(runs):
    assert scatter._front([(0.5, 0.9), (0.9, 0.5), (0.4, 0.8), (0.9, 0.4)]) == [(0.5, 0.9), (0.9, 0.5)]
    figure = scatter.pareto(groups_of(runs))
    points = markers(figure.axes[0])
    sft = runs[2]
    assert (pytest.approx(sft.metrics["average_accuracy"]), pytest.approx(sft.prior[3])) in [p[:2] for p in points]
    assert {text.get_text() for text in figure.axes[0].texts} >= {"sdft (2 seeds)", "sft", "1", "2"}


def test_pass_at_k_of_runs_whose_folders_share_a_name(tmp_path):
    folders = [make_run(tmp_path / method / "run", method, items=6) for method in ("sdft", "sft")]
    for folder, value in zip(folders, (0.25, 0.75), strict=True):
        path = folder / "evals" / f"03-{TASKS[2]}" / "scores.json"
        scores = json.loads(path.read_text())
        scores["tasks"][TASKS[1]]["pass_at"] = {
            "samples": 4,
            "questions": 10,
            "unscored": 0,
            "mean_tokens": 9.0,
            "values": {"1": value, "4": None},
            "intervals": {"1": [0.1, 0.9], "4": None},
        }
        path.write_text(json.dumps(scores))
    (axis,) = curves.pass_at_k(groups_of([results.load_run(folder) for folder in folders])).axes
    assert axis.get_title(loc="left") == TASKS[1]
    assert [(x, y) for x, y, _ in markers(axis)] == [(1.0, 0.25), (1.0, 0.75)]


def test_values_that_are_not_numbers_are_left_out(tmp_path):
    folder = make_run(tmp_path / "run", items=6)
    row = {"kind": "step", "stage": 3, "task": TASKS[2], "step": 101, "global_step": 301, "loss": float("nan")}
    with (folder / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    figure = curves.training_curves(groups_of([results.load_run(folder)]))
    assert max(max(line.get_xdata()) for line in figure.axes[0].lines) == 300


def test_looks_differ_without_colour():
    looks = drawing.looks([str(k) for k in range(12)])
    assert len({(look.colour, look.dash, look.marker) for look in looks}) == 12
    assert len({(str(look.dash), look.marker) for look in looks[:6]}) == 6


def test_names_at_line_ends_neither_touch_nor_leave_the_axis():
    heights = drawing._apart([0.0, 0.5, 0.5, 0.99, 1.0], 0.085)
    gaps = [b - a for a, b in pairwise(heights)]
    assert min(gaps) >= 0.085 - 1e-9 and heights[0] >= 0 and heights[-1] <= 1
