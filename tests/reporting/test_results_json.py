"""results.json of the demo, and the results that `sdft train --json` prints."""

from __future__ import annotations

import json

from support.run_folder import FORGETS, KEEPS, TASKS, make_run

from sdft_cli.config.recipe import Recipe
from sdft_cli.reporting import results_json
from sdft_cli.runs import results


def test_results_json_has_the_documented_shape(tmp_path):
    runs = [
        results.load_run(make_run(tmp_path / name, name, rates)) for name, rates in (("sdft", KEEPS), ("sft", FORGETS))
    ]
    recipe = Recipe(model="micro", seed=3, world=1)
    record = json.loads(json.dumps(results_json.demo_results(runs, recipe, 12.5)))
    assert set(record) == {"methods", "n", "intervals", "seed", "world", "seconds"}
    assert (record["seed"], record["world"], record["seconds"]) == (3, 1, 12.5)
    assert record["n"] == {**dict.fromkeys(TASKS, 40), "micro": 60}
    for run in runs:
        method = record["methods"][run.method]
        assert set(method) == {"tasks", "matrix", "cut", "exact", "prior", "metrics"}
        assert set(method["metrics"]) == set(results_json.RECORDED)
        assert method["matrix"] == run.matrix and len(method["matrix"]) == len(method["prior"]) == 4
        ends = record["intervals"][run.method]
        low, high = ends["metrics"]["backward_transfer"]
        assert low <= method["metrics"]["backward_transfer"] <= high
        assert len(ends["matrix"]) == len(ends["prior"]) == 4
    other = results_json.demo_results(runs, Recipe(model="org/model"), 1.0)
    assert other["model"] == "org/model" and "world" not in other


def test_one_run_has_its_intervals_beside_its_results(tmp_path):
    run = results.load_run(make_run(tmp_path / "bare", items=6, suite=False))
    record = results_json.run_results(run)
    assert set(record) == {"tasks", "matrix", "cut", "exact", "prior", "metrics", "intervals"}
    assert record["prior"] is None
    low, high = record["intervals"]["metrics"]["backward_transfer"]
    assert low <= record["metrics"]["backward_transfer"] <= high
