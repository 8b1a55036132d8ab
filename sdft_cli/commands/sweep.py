"""The composition `sweep`: a run a point of a grid, the point chosen by validation accuracy, and a table of them all.

Every point is an ordinary run folder under the sweep's own, so what is finished there is not run again, and any verb
reads it. ``sweep.json`` holds what was asked and, once all is done, the table; ``sweep.md`` the table for people.
Left out: stopping bad points early, and any search but the whole grid.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdft_cli import console
from sdft_cli.config.grid import NO_GRID, Asked, Point, check_grown, grids_of, leaf, point, points, text_of
from sdft_cli.config.locations import locate
from sdft_cli.config.overrides import differences
from sdft_cli.config.recipe import Recipe
from sdft_cli.console import number, span
from sdft_cli.errors import UsageError
from sdft_cli.runs import results
from sdft_cli.runs.folder import RUNS, Run, fresh_name, write_whole
from sdft_cli.runs.logged import validation
from sdft_cli.runs.parallel import Job, cores, train_all
from sdft_cli.stats import selection
from sdft_cli.stats.continual import Metric
from sdft_cli.stats.seeds import seed_mean
from sdft_cli.stats.selection import Candidate

Row = dict[str, Any]
#: Metrics of the table, and of the means over seeds, with their heads.
_METRICS: dict[Metric, str] = {"average_accuracy": "avg", "backward_transfer": "BWT", "prior_change": "prior\nchange"}
_FILE = "sweep.json"
#: Settings that may have been changed when a point was resumed by itself, without making it another point.
_FREE = ("guards.", "engine.", "runtime.")


def sweep(
    asked: Asked | None, out: Path | None, jobs: int | None = None, resume: bool = False, quiet: bool = False
) -> Row:
    """Run the grid into ``out``; returns the folder and what ``sweep.json`` in it holds.

    ``resume`` needs a sweep in ``out``, and takes what was asked from there where ``asked`` is None. The key ``failed``
    names the points whose runs failed: they have no result, the others stand.
    """
    if resume:
        if out is None or not (out / _FILE).is_file():
            raise UsageError(
                f"--resume needs a sweep's folder, not {out}", "name the one that `sdft sweep` made: --out DIR"
            )
        asked = asked or Asked(**_stored(out)["asked"])
    if asked is None:
        raise UsageError(*NO_GRID)
    return _Sweep(asked, out, jobs, quiet).go()


class _Sweep:
    def __init__(self, asked: Asked, out: Path | None, jobs: int | None, quiet: bool):
        self.asked, self.jobs, self.quiet = asked, jobs, quiet
        self.grids, self.base = grids_of(asked), asked.recipe({})
        self.out = out or RUNS / f"sweep-{fresh_name(self.base).name}"
        self.points = points(asked, self.grids, asked.seeds if asked.all_seeds else asked.seeds[:1])
        self.rows_in: dict[str, list[list[int]]] = {}
        self.runs: dict[str, results.RunResult] = {}
        self.failed: dict[str, str] = {}

    def go(self) -> Row:
        kept = self._kept()
        self._preflight()
        if kept != self._head():
            write_whole(self.out / _FILE, json.dumps(self._head(), indent=1) + "\n")
        self._train(self.points)
        chosen = {method: found for method in self.grids if (found := self._choose(method))}
        if not self.asked.all_seeds:
            more = [point(self.asked, m, c["settings"], s) for m, c in chosen.items() for s in self.asked.seeds[1:]]
            self._train(more)
            self.points = [p for q in self.points for p in (q, *(m for m in more if _same(m, q)))]
        for method, found in chosen.items():
            found["over_seeds"] = self._over_seeds(method, found["settings"])
        rows = [self._row(p, chosen) for p in self.points]
        record = {**self._head(), "points": rows, "chosen": chosen, "failed": self.failed}
        write_whole(self.out / _FILE, json.dumps(record, indent=1) + "\n")
        write_whole(self.out / "sweep.md", _markdown(record))
        if not self.quiet:
            _show(record, self.out)
        return {"out": str(self.out), **record}

    # before anything runs -----------------------------------------------------------------------------------

    def _preflight(self) -> None:
        """Everything that can be wrong and can be known before a model loads, for the points not yet finished."""
        if any(p.recipe.train.eval_every == 0 for p in self.points):
            raise UsageError("train.eval_every=0: nothing to choose by", "set train.eval_every, in steps")
        todo = [p for p in self.points if not self._done(p)]
        if todo:
            from sdft_cli.training.preflight import check_recipe

            for p in todo:
                check_recipe(p.recipe)
            for p in todo:
                self._steps(p)

    def _steps(self, p: Point) -> int:
        """Optimizer steps of the point's run; the rows behind them are read once a method."""
        from sdft_cli.training.batches import steps_in

        if p.method not in self.rows_in:
            self.rows_in[p.method] = self._read(p.recipe)
        phases = p.recipe.phases()
        return sum(
            steps_in(f.train, n, f.sampler.n) for s in self.rows_in[p.method] for f, n in zip(phases, s, strict=True)
        )

    def _read(self, recipe: Recipe) -> list[list[int]]:
        """Training rows of every phase of every stage; says once how many validation rows will count."""
        from sdft_cli.models.pretrained import load_chat
        from sdft_cli.training.preflight import context_window, plan

        location = locate(recipe.model)
        stages = plan(recipe, load_chat(location), context_window(location))
        most = max(len(s.validation) for s in stages)
        if not self.rows_in and recipe.train.eval_limit < most:
            self._say(
                f"choosing by {recipe.train.eval_limit} of up to {most} validation rows a task (--set eval_limit)"
            )
        return [[len(phase.examples) for phase in s.phases] for s in stages]

    def _head(self) -> Row:
        """What was asked, as JSON has it."""
        head = {"asked": asdict(self.asked), "grid": self.grids, "base": self.base.model_dump(mode="json")}
        return json.loads(json.dumps({**head, "rule": selection.RULE}))

    def _kept(self) -> Row | None:
        """What was asked of the sweep in the folder; refuses one that this one does not contain, and other files."""
        hint = "name another folder with --out"
        if (self.out / _FILE).is_file():
            old, head = _stored(self.out), self._head()
            if old["base"] != head["base"] or not set(old["asked"]["seeds"]) <= set(self.asked.seeds):
                raise UsageError(f"{self.out} holds a sweep of another recipe or of other seeds", hint)
            check_grown(old["grid"], self.grids, self.out)
            return {key: old[key] for key in head}
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UsageError(f"{self.out} already holds other files", hint)
        return None

    # running ------------------------------------------------------------------------------------------------

    def _done(self, p: Point) -> bool:
        return (self.out / p.name / "done.json").is_file()

    def _train(self, wanted: Sequence[Point]) -> None:
        """Every run that is not finished, several side by side; then read them all."""
        todo = [p for p in wanted if not self._done(p)]
        for p in wanted:
            self._create(p)
        if todo:
            at_once = min(len(todo), self.jobs or _at_once())
            self._say(f"runs in {self.out}: {len(wanted)}, {len(todo)} to do, {at_once} at a time")
            jobs = [Job(p.name, self.out / p.name, self._steps(p)) for p in todo]
            self.failed |= train_all(jobs, at_once, self.quiet, keep_going=True)
        for p in wanted:
            if p.name in self.failed:
                continue
            self.runs[p.name] = run = results.load_run(self.out / p.name)
            if _validation(run) is None:
                self.failed[p.name] = "not every stage has validation rows that could be scored"

    def _create(self, p: Point) -> None:
        folder = self.out / p.name
        if not (folder / "recipe.json").is_file():
            Run.create(folder, p.recipe)
            return
        changed = differences(Recipe.load(folder / "recipe.json"), p.recipe)
        if other := [key for key in changed if not key.startswith(_FREE)]:
            raise UsageError(f"{folder} holds a run with other {', '.join(other)}", "name another folder with --out")

    # choosing -----------------------------------------------------------------------------------------------

    def _choose(self, method: str) -> Row | None:
        """The settings chosen for a method, and the best it was compared with; None where every point failed."""
        groups: list[tuple[Row, Candidate]] = []
        for p in self.points:
            same = [q for q in self.points if _same(p, q)]
            if p.method == method and same[0] is p and not any(q.name in self.failed for q in same):
                groups.append((p.settings, self._candidate(same)))
        if not groups:
            return None
        candidates = [c for _, c in groups]
        settings, taken = groups[selection.pick(candidates)]
        best = max(range(len(groups)), key=lambda i: candidates[i].accuracy)
        facts = {"settings": groups[best][0], "validation": candidates[best].accuracy}
        error = selection.standard_error(candidates[best])
        return {"settings": settings, "validation": taken.accuracy, "best": {**facts, "standard_error": error}}

    def _candidate(self, same: Sequence[Point]) -> Candidate:
        """The runs of one point, seeds pooled."""
        found = [v for p in same if (v := _validation(self.runs[p.name]))]
        return Candidate(statistics.fmean(a for a, _ in found), sum(n for _, n in found), same[0].recipe.train.lr)

    def _over_seeds(self, method: str, settings: Row) -> Row:
        """Mean and 95 % t-interval (none for one seed) of each metric."""
        same = [p for p in self.points if (p.method, p.settings) == (method, settings) and p.name not in self.failed]
        found: Row = {"seeds": [p.seed for p in same]}
        facts = [{**self.runs[p.name].metrics, **_side(self.runs[p.name])} for p in same]
        for key in [*_METRICS, *(_side(self.runs[same[0].name]) if same else ())]:
            values = [v for f in facts if (v := f.get(key)) is not None]
            if values:
                mean, interval = seed_mean(values)
                found[key] = {"mean": mean, "interval": interval}
        return found

    def _row(self, p: Point, chosen: Mapping[str, Row]) -> Row:
        """A point as the table has it."""
        mark = p.method in chosen and chosen[p.method]["settings"] == p.settings
        facts = {"name": p.name, "method": p.method, "settings": p.settings, "seed": p.seed, "chosen": mark}
        run = self.runs.get(p.name)
        if run is None:
            return facts
        accuracy, n = _validation(run) or (None, 0)
        after = [run.matrix[k][column] for k, column in enumerate(run.trained, 1)]
        measured: Row = {"validation": accuracy, "validation_n": n, "stages": after, "side": _side(run)}
        measured |= {key: run.metrics[key] for key in _METRICS}
        return {**facts, **measured, "steps": len(run.steps), "seconds": run.seconds}

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr)


def _stored(out: Path) -> Row:
    found: Row = json.loads((out / _FILE).read_text(encoding="utf-8"))
    return found


def _same(p: Point, q: Point) -> bool:
    """Whether two runs differ in nothing but the seed."""
    return (p.method, p.settings) == (q.method, q.settings)


def _validation(run: results.RunResult) -> tuple[float, int] | None:
    return validation(run.evals, len(run.stages), run.endings)


def _side(run: results.RunResult) -> dict[str, float | None]:
    """What the last stage's task is scored on besides its accuracy."""
    return run.side_scores(run.last, run.stages[run.last - 1])


def _at_once() -> int:
    """Runs side by side where the caller names no number: a GPU is one run's, processor cores are shared."""
    import torch

    return 1 if torch.cuda.is_available() else max(1, cores() // 2)


# --- showing -------------------------------------------------------------------------------------------------


def _cells(record: Row) -> tuple[list[str], list[list[str]]]:
    """Heads (of one or two lines) and text cells of the table, the same for terminal and Markdown."""
    rows = record["points"]
    keys = list(dict.fromkeys(key for grid in record["grid"].values() for key in grid))
    methods, seeds = len(record["grid"]) > 1, len({r["seed"] for r in rows}) > 1
    stages = max(len(r.get("stages", ())) for r in rows)
    heads = ["", *(["method"] if methods else []), *map(leaf, keys), *(["seed"] if seeds else []), "valid"]
    sides = list(dict.fromkeys(name for r in rows for name in r.get("side", ())))
    heads += [*(f"stage\n{k}" for k in range(1, stages + 1)), *(name.replace(" ", "\n", 1) for name in sides)]
    heads += [*_METRICS.values(), "steps", "sec"]
    table = []
    for r in rows:
        cells = ["*" if r["chosen"] else "", *([r["method"]] if methods else [])]
        cells += [text_of(r["settings"][k]) if k in r["settings"] else "-" for k in keys]
        cells += [str(r["seed"])] if seeds else []
        if "stages" in r:
            cells += [number(r["validation"]), *map(number, r["stages"]), *(number(r["side"].get(s)) for s in sides)]
            cells += [number(r[key], console.is_change(key)) for key in _METRICS]
            cells += [str(r["steps"]), f"{r['seconds']:.0f}"]
        elif r["name"] in record["failed"]:
            cells.append("failed")
        table.append([*cells, *["-"] * (len(heads) - len(cells))])
    return heads, table


def _lines(record: Row) -> list[str]:
    """What the table cannot say: why a point was chosen, its metrics over seeds, and what failed."""
    lines = [f"rule: {record['rule']}"]
    for method, c in record["chosen"].items():
        best = c["best"]
        lines.append(
            f"chosen for {method}: {_said(c['settings'])}, validation {number(c['validation'])} "
            f"(best {number(best['validation'])} at {_said(best['settings'])}, "
            f"standard error {number(best['standard_error'])})"
        )
        seeds = c["over_seeds"]
        if len(seeds["seeds"]) > 1:
            means = [(k, m) for k, m in seeds.items() if k != "seeds"]
            parts = [
                f"{_title(k)} {number(m['mean'], s := k in _METRICS and console.is_change(k))} {span(m['interval'], s)}"
                for k, m in means
            ]
            lines.append(f"over {len(seeds['seeds'])} seeds (mean, 95 % t-interval): {'; '.join(parts)}")
    return [*lines, *(f"failed: {name}: {why}" for name, why in record["failed"].items())]


def _title(metric: str) -> str:
    return next((head for name, head in _METRICS.items() if name == metric), metric).replace("\n", " ")


def _said(settings: Row) -> str:
    return " ".join(f"{leaf(k)}={text_of(v)}" for k, v in settings.items()) or "its recipe"


def _markdown(record: Row) -> str:
    heads, table = _cells(record)
    rows = [[h.replace("\n", " ") for h in heads], ["---"] * len(heads), *table]
    lines = ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
    return "\n".join(["# Sweep", "", *lines, "", *(f"* {line}" for line in _lines(record))]) + "\n"


def _show(record: Row, out: Path) -> None:
    console.out.print(console.plain_table(*_cells(record)))
    for line in [*_lines(record), f"table: {out / 'sweep.md'}"]:
        console.out.print(line, markup=False, soft_wrap=True)
