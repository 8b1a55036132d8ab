"""The `sweep` command: one run per point of a grid, the best point chosen on validation rows, and a table of all.

Every point is an ordinary run folder inside the sweep's, so a finished one is not run again, and every command reads
it. ``sweep.json`` holds the sweep's arguments and, once it is done, the table; ``sweep.md`` is for people.
Left out: stopping bad points early, and any search but the whole grid.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import cast

from sdft_cli import console, plugins
from sdft_cli.config.judge_section import FREE, JudgeSettings
from sdft_cli.config.model_locations import locate
from sdft_cli.config.overrides import unlike
from sdft_cli.config.recipe import Recipe, build
from sdft_cli.config.recipe_layers import absolute_paths
from sdft_cli.config.sweep_grid import NO_GRID, Point, SweepArguments, check_grown, grids_of, point, points
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.scorable import HINT
from sdft_cli.reporting import sweep_table
from sdft_cli.runs import results, sweeps
from sdft_cli.runs.cores import cores
from sdft_cli.runs.files import write_whole
from sdft_cli.runs.folder import RUNS, Run, fresh_name
from sdft_cli.runs.parallel_runs import Job, train_all
from sdft_cli.runs.signals import Stopped
from sdft_cli.runs.sweep_points import TrainedPoint, choose, criterion_of, incomparable, over_seeds
from sdft_cli.runs.sweeps import (
    Choice,
    Criterion,
    PointRow,
    Settings,
    SweepArgumentsRecord,
    SweepRecord,
    SweepSpec,
)
from sdft_cli.stats import selection
from sdft_cli.types import Json

#: Settings that may have been changed when a point was resumed by itself, without making it another point.
_FREE = ("guards.", "engine.", "runtime.", "plugins", *FREE)


class SweepResult(SweepRecord):
    """``out`` is the sweep's folder."""

    out: str


def sweep(
    arguments: SweepArguments | None,
    out: Path | None,
    jobs: int | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> SweepResult:
    """Run the grid in ``out`` (a new folder under runs/ when None); returns what ``sweep.json`` there holds.

    ``resume`` needs a sweep in ``out``, whose arguments it takes where ``arguments`` is None. Points whose runs failed
    have no result and are listed under ``failed``; the others keep theirs.
    """
    if resume:
        stored = stored_arguments(out)
        arguments = arguments or stored
    if arguments is None:
        raise UsageError(*NO_GRID)
    return _Sweep(arguments, out, jobs, quiet).run()


def stored_arguments(out: Path | None) -> SweepArguments:
    """The arguments of the sweep in ``out``; `UsageError` where there is none."""
    spec = sweeps.read_spec(out) if out else None
    if spec is None:
        raise UsageError(
            f"--resume needs a sweep's folder, not {out}", "name the folder of an earlier sweep: --out DIR"
        )
    recorded = cast(dict[str, Json], spec["arguments"])  # what only a later version knows is left out
    return SweepArguments(**{field.name: recorded[field.name] for field in fields(SweepArguments)})


class _Sweep:
    """``points`` in the order of the table; ``trained`` and ``failed`` by their names."""

    def __init__(self, arguments: SweepArguments, out: Path | None, jobs: int | None, quiet: bool):
        self.arguments, self.jobs, self.quiet = arguments, jobs, quiet
        self.grids, self.base = grids_of(arguments), arguments.recipe({})
        self.out = out or RUNS / f"sweep-{fresh_name(self.base).name}"
        self.points = points(arguments, self.grids, arguments.seeds if arguments.all_seeds else arguments.seeds[:1])
        self.rows: dict[str, list[list[int]]] = {}  # training rows by method, of every phase of every stage
        self.unscored: dict[str, str] = {}  # why tasks will have no validation accuracy
        self.without_loss: dict[str, None] = {}  # tasks that will have no validation loss either
        self.trained: dict[str, TrainedPoint] = {}
        self.failed: dict[str, str] = {}
        self.criterion: Criterion = "accuracy"

    def run(self) -> SweepResult:
        spec = self._spec()
        stored = self._stored(spec)
        self._preflight()
        if stored is None or {**stored, "rule": spec["rule"]} != spec:
            sweeps.write(self.out, spec)
        self._train(self.points)
        self.criterion = criterion_of(self.trained.values())
        self.failed |= incomparable(self.trained, self.criterion)
        chosen = {method: best for method in self.grids if (best := self._choose(method))}
        if not self.arguments.all_seeds:
            self._more_seeds(chosen)
        for method, choice in chosen.items():
            choice["over_seeds"] = over_seeds(self._seeds_of(method, choice["settings"]))
        rows = [self._row(p, chosen) for p in self.points]
        rule = selection.RULE_BY_LOSS if self.criterion == "loss" else spec["rule"]
        record: SweepRecord = {
            **spec,
            "rule": rule,
            "criterion": self.criterion,
            "points": rows,
            "chosen": chosen,
            "failed": self.failed,
        }
        sweeps.write(self.out, record)
        write_whole(self.out / "sweep.md", sweep_table.markdown(record))
        if not self.quiet:
            _show(record, self.out)
        return {"out": str(self.out), **record}

    # before anything runs -----------------------------------------------------------------------------------

    def _spec(self) -> SweepSpec:
        """What this sweep is to run, as it comes back from JSON."""
        arguments, base = cast(SweepArgumentsRecord, asdict(self.arguments)), self.base.model_dump(mode="json")
        spec: SweepSpec = {"arguments": arguments, "grid": self.grids, "base": base, "rule": selection.RULE}
        reread: SweepSpec = json.loads(json.dumps(spec))
        return reread

    def _stored(self, spec: SweepSpec) -> SweepSpec | None:
        """The spec of the sweep in the folder. Refuses one that this sweep does not contain, and other files."""
        hint = "name another folder with --out"
        if stored := sweeps.read_spec(self.out):
            if _base(stored) != _base(spec) or not set(stored["arguments"]["seeds"]) <= set(self.arguments.seeds):
                raise UsageError(f"{self.out} holds a sweep of another recipe or of other seeds", hint)
            check_grown(stored["grid"], self.grids, self.out)
            return stored
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UsageError(f"{self.out} already holds other files", hint)
        return None

    def _preflight(self) -> None:
        """Raise what can be known to be wrong before a model loads, for the points that are not finished."""
        if any(p.recipe.train.eval_every == 0 for p in self.points):
            raise UsageError("train.eval_every=0: nothing to choose by", "set train.eval_every, in steps")
        unfinished = [p for p in self.points if not self._run(p).done]
        if unfinished:
            from sdft_cli.training.recipe_checks import check_recipe

            for p in unfinished:
                check_recipe(p.recipe)
            for p in unfinished:
                self._steps(p)
            _check_judge(self.base, self._note)
            if by_loss := _choice_by_loss(self.unscored, list(self.without_loss)):
                self._note(by_loss)

    def _steps(self, p: Point) -> int:
        """Optimizer steps of the point's run; the rows behind them are read once for each method."""
        from sdft_cli.training.batches import steps_in

        if p.method not in self.rows:
            self.rows[p.method] = self._read(p.recipe)
        phases = p.recipe.phases()
        return sum(
            steps_in(phase.train, count, phase.sampler.n)
            for stage in self.rows[p.method]
            for phase, count in zip(phases, stage, strict=True)
        )

    def _read(self, recipe: Recipe) -> list[list[int]]:
        """Training rows of every phase of every stage; reports once how many validation rows will count."""
        from sdft_cli.models.pretrained import load_chat
        from sdft_cli.training.preflight import plan
        from sdft_cli.training.score_checks import loss_texts

        chat = load_chat(locate(recipe.model))
        stages = plan(recipe, chat)
        self.unscored |= {stage.task.name: stage.unscored for stage in stages if stage.unscored}
        if any(stage.unscored for stage in stages):
            measured = [(stage.task.name, loss_texts(stage.task, stage.validation, recipe, chat)) for stage in stages]
            self.without_loss |= dict.fromkeys(task for task, texts in measured if texts is None)
        most, limit = max(len(s.validation) for s in stages), recipe.train.eval_limit
        if not self.rows and limit < most:
            self._note(f"choosing by {limit} of up to {most} validation rows per task (--set eval_limit)")
        return [[len(phase.examples) for phase in s.phases] for s in stages]

    # running ------------------------------------------------------------------------------------------------

    def _run(self, p: Point) -> Run:
        return Run(self.out / p.name)

    def _train(self, wanted: Sequence[Point]) -> None:
        """Every run that is not finished, several side by side; then read them all."""
        for p in wanted:
            self._create(p)
        if todo := [p for p in wanted if not self._run(p).done]:
            at_once = min(len(todo), self.jobs or _at_once())
            self._note(f"runs in {self.out}: {len(wanted)}, {len(todo)} to do, {at_once} at a time")
            jobs = [Job(p.name, self.out / p.name, self._steps(p)) for p in todo]
            try:
                self.failed |= train_all(jobs, at_once, self.quiet, keep_going=True)
            except Stopped as stop:
                hint = f"go on with: sdft sweep --resume --out {self.out}"
                raise Stopped(stop.number, stop.message, hint) from None
        for p in wanted:
            if p.name in self.failed:
                continue
            self.trained[p.name] = TrainedPoint(p, results.load_run(self.out / p.name))

    def _create(self, p: Point) -> None:
        folder = self.out / p.name
        if not (folder / "recipe.json").is_file():
            Run.create(folder, p.recipe)
            return
        run = Run.open(folder)
        changed = unlike(absolute_paths(run.recipe), p.recipe)
        if other := [key for key in changed if not key.startswith(_FREE)]:
            raise UsageError(f"{folder} holds a run with other {', '.join(other)}", "name another folder with --out")
        if any(key.startswith(FREE) for key in changed):  # the limits of the sweep's judge are its points'
            run.change_recipe(run.recipe.model_copy(update={"judge": p.recipe.judge}))

    def _more_seeds(self, chosen: Mapping[str, Choice]) -> None:
        """Run the chosen points with the other seeds too, and put them beside their first seed's."""
        seeds = self.arguments.seeds[1:]
        more = [point(self.arguments, method, c["settings"], seed) for method, c in chosen.items() for seed in seeds]
        self._train(more)
        self.failed |= incomparable(self.trained, self.criterion)
        self.points = [p for first in self.points for p in (first, *(m for m in more if _same(m, first)))]

    def _note(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr)

    # results ----------------------------------------------------------------------------------------------

    def _choose(self, method: str) -> Choice | None:
        """The settings chosen for a method; None where every point failed."""
        groups = []
        for p in self.points:
            seeds = [q for q in self.points if _same(p, q)]
            if p.method == method and seeds[0] is p and not any(q.name in self.failed for q in seeds):
                groups.append([self.trained[q.name] for q in seeds])
        return choose(groups, self.criterion) if groups else None

    def _seeds_of(self, method: str, settings: Settings) -> list[TrainedPoint]:
        """The finished runs of one point, by seed."""
        same = [p for p in self.points if (p.method, p.settings) == (method, settings)]
        return [self.trained[p.name] for p in same if p.name not in self.failed]

    def _row(self, p: Point, chosen: Mapping[str, Choice]) -> PointRow:
        """A point as the table shows it."""
        mark = p.method in chosen and chosen[p.method]["settings"] == p.settings
        row: PointRow = {"name": p.name, "method": p.method, "settings": p.settings, "seed": p.seed, "chosen": mark}
        if trained := self.trained.get(p.name):
            row["result"] = trained.result()
        return row


def _base(spec: SweepSpec) -> Recipe:
    """A sweep's recipe; an older sweep has its paths as they were given."""
    recipe = absolute_paths(build([{**spec["base"], "plugins": []}], "sweep.json"))
    return recipe.model_copy(update={"judge": JudgeSettings(model=recipe.judge.model)})  # its limits may change


def _check_judge(recipe: Recipe, say: Callable[[str], None]) -> None:
    """Raise `SdftError` where the judge of all points cannot judge anything."""
    if recipe.judge.model is not None:
        from sdft_cli.evaluation.run_judging import check_judge

        check_judge(recipe, [plugins.task(name, Path(recipe.data)) for name in recipe.tasks], say)


def _choice_by_loss(unscored: Mapping[str, str], without_loss: Sequence[str]) -> str:
    """What to say of a choice by loss, as some task cannot be scored; empty where the accuracy decides. Raises
    `UsageError` where there would be nothing to choose by."""
    reasons = "; ".join(f"{task} cannot be scored: {reason}" for task, reason in unscored.items())
    if reasons and without_loss:
        lack = "have neither demonstrations nor gold answers, so there is no validation loss to choose by either"
        raise UsageError(f"{reasons}; the validation rows of {', '.join(without_loss)} {lack}", HINT)
    return f"choosing by validation loss ({reasons})" if reasons else ""


def _same(p: Point, q: Point) -> bool:
    """Whether two runs differ in nothing but the seed."""
    return (p.method, p.settings) == (q.method, q.settings)


def _at_once() -> int:
    """Runs side by side where the caller names no number: a GPU belongs to one run, processor cores are shared."""
    import torch

    return 1 if torch.cuda.is_available() else max(1, cores() // 2)


def _show(record: SweepRecord, out: Path) -> None:
    console.out.print(console.plain_table(*sweep_table.cells(record)))
    for line in [*sweep_table.lines(record), f"table: {out / 'sweep.md'}"]:
        console.out.print(line, markup=False, soft_wrap=True)
