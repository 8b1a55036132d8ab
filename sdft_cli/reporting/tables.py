"""The tables of a report: facts in, cells of text out. Terminal, page, Markdown and LaTeX all show these same tables.

Hyphens stand for minus signs; whoever shows a table sets them as his medium likes. A dagger marks a run that was
measured under other settings than the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sdft_cli.config.overrides import leaves
from sdft_cli.console import is_change, number, pvalue, span
from sdft_cli.reporting.groups import differing, shown
from sdft_cli.stats.continual import METRICS, Interval

Row = dict[str, Any]

DAGGER = "†"
#: The matrices of more runs than this are folded away.
_FEW = 3
#: Tables with more rows than this are folded away.
_LONG = 16
NONE = "-"
OF_ITEMS = (
    "Brackets: 95 % intervals over test items of these checkpoints ({draws} paired bootstrap draws, none narrower than "
    "the rule of three allows). Another training seed is not in them."
)
OF_SEEDS = "Mean over training seeds; brackets: 95 % t-intervals of the mean."
OF_CELLS = "* trained in this stage. Brackets: 95 % intervals (Wilson; of the suite, combined over its skills)."


@dataclass(frozen=True)
class Cell:
    """What is read, its interval, and what it sorts by (None: its text). ``mark`` puts a star before it, ``shade`` from
    0 to 1 colours it in."""

    text: str
    interval: Interval | None = None
    signed: bool = False
    sort: float | None = None
    mark: bool = False
    shade: float | None = None

    @property
    def starred(self) -> str:
        return f"*{self.text}" if self.mark else self.text


@dataclass(frozen=True)
class Table:
    """Rows of cells under heads of up to two lines; the first ``names`` columns are names, not figures.

    ``folded``: it is long or a detail, and a page may hide it until it is asked for.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    names: int = 1
    folded: bool = False


@dataclass(frozen=True)
class TableGroup:
    """Tables under one heading."""

    title: str
    tables: Sequence[Table]
    intro: str = ""


def sections(facts: Row) -> dict[str, TableGroup]:
    """All tables of a report by section, in the order in which to read them; sections without a table are left out."""
    runs = facts["runs"]
    since = "“Since learned” is from the last stage that trained a task to the end."
    remarks = dict.fromkeys(remark for run in runs for remark in run["remarks"])
    found = {
        "results": TableGroup("Results", _results(facts)),
        "matrix": TableGroup(
            "Accuracy after every stage", _matrices(facts), " ".join(f"{remark}." for remark in remarks)
        ),
        "curves": TableGroup("Metrics after every stage", _some(_curves(runs), fold=True)),
        "changes": TableGroup("Items gained and lost", _some(_changes(runs)), f"Did this checkpoint change? {since}"),
        "skills": TableGroup("The prior suite, skill by skill", _skills(runs)),
        "measures": TableGroup("Measured besides", _some(_measures(runs))),
        "pass-at-k": TableGroup("pass@k", _some(_pass_at(runs))),
        "endings": TableGroup("How stages ended", _some(_endings(runs))),
        "guards": TableGroup("What guards found", _some(_guards(runs))),
        "recipe": TableGroup("Recipe", _settings(facts, "recipe")),
        "environment": TableGroup("Environment", _settings(facts, "environment")),
    }
    return {name: section for name, section in found.items() if section.tables}


def _some(table: Table, fold: bool = False) -> list[Table]:
    """The table, unless it is empty; a long one folded."""
    return [replace(table, folded=fold or len(table.rows) > _LONG)] if table.rows else []


def cell_of(found: Row | None, signed: bool = False, digits: int = 3, shaded: bool = False) -> Cell:
    """A value with its interval."""
    if found is None or found["value"] is None:
        return Cell(NONE)
    value, shade = found["value"], found["value"] if shaded else None
    interval = found["interval"] and (found["interval"][0], found["interval"][1])
    return Cell(number(value, signed, digits), interval, signed, value, bool(found.get("new")), shade)


def label(run: Row) -> Cell:
    return Cell(f"{run['label']} {DAGGER}" if run["unlike"] else run["label"])


def _count(value: int | None) -> Cell:
    return Cell(NONE) if value is None else Cell(str(value), sort=value)


def _p(value: float | None) -> Cell:
    return Cell(pvalue(value), sort=value)


# --- results -----------------------------------------------------------------------------------------------------


def _results(facts: Row) -> list[Table]:
    """Means over seeds and their difference, where there are any, and every run."""
    defined = [m for m in METRICS if any(run["metrics"][m]["value"] is not None for run in facts["runs"])]
    if not defined:
        return []
    rows = [[label(run), *_figures(run["metrics"], defined)] for run in facts["runs"]]
    if facts["difference"]:
        a, b = (run["label"] for run in facts["runs"])
        rows.append([Cell(f"{a} − {b}"), *(cell_of(facts["difference"][m], signed=True) for m in defined)])
    note = [OF_ITEMS.format(draws=facts["draws"])]
    if any(run["unlike"] for run in facts["runs"]):
        note.append(f"{DAGGER} Not measured like the first.")
    if missing := [m.replace("_", " ") for m in METRICS if m not in defined]:
        note.append(f"Not defined here: {', '.join(missing)}.")
    seeds = _seeds(facts, defined)
    fold = bool(seeds) and len(rows) > _LONG
    title = "Each run, after its last evaluated stage"
    return [*seeds, Table(title, ("run", *_heads(defined)), rows, " ".join(note), folded=fold)]


def _seeds(facts: Row, defined: Sequence[str]) -> list[Table]:
    found = facts["groups"]
    if all(len(group["seeds"]) == 1 for group in found):
        return []
    rows = [
        [Cell(f"{g['name']} ({_plural(len(g['seeds']), 'seed')})"), *_figures(g["metrics"], defined)] for g in found
    ]
    more = " `sdft compare --by` tests pairs of methods or settings." if len(found) > 1 and not facts["pair"] else ""
    means = Table("Over seeds", ("recipe", *_heads(defined)), rows, OF_SEEDS + more)
    return [means, _tests(facts["pair"])] if facts["pair"] else [means]


def _tests(pair: Row) -> Table:
    rows = []
    for metric, test in pair["tests"].items():
        found = cell_of(test, signed=True)
        figures = [replace(found, interval=None), Cell(span(found.interval, signed=True) or NONE)]
        rows.append([Cell(metric.replace("_", " ")), *figures, _p(test["t_p"]), _p(test["flip_p"])])
    note = f"{len(pair['seeds'])} paired seeds allow no sign-flip p below {pvalue(pair['smallest_p'])}."
    heads = ("metric", "difference", "95 %\nt-interval", "p\npaired t", "p\nsign-flip")
    return Table(f"{pair['a']} − {pair['b']}, over seeds", heads, rows, note)


def _heads(names: Sequence[str]) -> list[str]:
    return [name.replace("_", "\n") for name in names]


def _figures(found: Mapping[str, Row], names: Sequence[str]) -> list[Cell]:
    return [cell_of(found[metric], is_change(metric)) for metric in names]


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


# --- stage by stage ----------------------------------------------------------------------------------------------


def matrix(found: Row, title: str, note: str = OF_CELLS, folded: bool = False) -> Table:
    """An accuracy matrix (`records.matrix`)."""
    heads = ["after stage", *(f"{head}\nn = {n}" for head, n in zip(found["heads"], found["sizes"], strict=True))]
    rows = [[Cell(row["name"]), *(cell_of(c, shaded=True) for c in row["cells"])] for row in found["rows"]]
    return Table(title, heads, rows, note, folded=folded)


def _matrices(facts: Row) -> list[Table]:
    """One a run, after those of means over seeds."""
    means = [group for group in facts["groups"] if len(group["seeds"]) > 1 and group["rows"]]
    note = f"* trained in this stage. {OF_SEEDS}"
    titles = [f"{group['name']}, mean of {len(group['seeds'])} seeds" for group in means]
    found = [matrix(g, title, note, len(means) > _FEW) for g, title in zip(means, titles, strict=True)]
    for run in facts["runs"]:
        notes = " ".join([OF_CELLS, *_ended(run["notes"])])
        found.append(matrix(run, label(run).text, notes, len(facts["runs"]) > _FEW))
    return found


def _ended(notes: Sequence[str]) -> list[str]:
    return [f"{note[:1].upper()}{note[1:]}." for note in notes]


def _curves(runs: Sequence[Row]) -> Table:
    missed = any(row["intransigence"] is not None for run in runs for row in run["curves"])
    names = [*METRICS, "prior", *(["intransigence"] if missed else [])]
    rows = [
        [label(run), Cell(f"{row['stage']} {row['task']}", sort=row["stage"]), *(_plain(row[n], n) for n in names)]
        for run in runs
        for row in run["curves"][1:]
    ]
    return Table("", ("run", "after stage", *_heads(names)), rows, names=2)


def _plain(value: float | None, name: str) -> Cell:
    return cell_of({"value": value, "interval": None}, signed=is_change(name) and name != "prior")


def _changes(runs: Sequence[Row]) -> Table:
    sides = ("base → end:", "since learned:")
    heads = ("run", "items of", "n", *(f"{side}\n{what}" for side in sides for what in ("gained", "lost", "p")))
    rows = [
        [label(run), Cell(row["name"]), _count(row["n"]), *_moved(row["base"]), *_moved(row["learned"])]
        for run in runs
        for row in run["changes"]
    ]
    note = (
        "p: exact McNemar test on the same items (graded scores: sign-flip test). It tells of these checkpoints alone."
    )
    return Table("", heads, rows, note, names=2)


def _moved(side: Row | None) -> list[Cell]:
    return [_count(side["gained"]), _count(side["lost"]), _p(side["p"])] if side else [Cell(NONE)] * 3


def _skills(runs: Sequence[Row]) -> list[Table]:
    """A row a run, a column a skill: accuracies at the end, and what changed since the base."""
    sizes = {skill["name"]: skill["n"] for run in runs for skill in run["skills"]}
    heads = ("run", *(f"{name}\nn = {n}" for name, n in sizes.items()))
    ends, changes = [], []
    for run in runs:
        of = {skill["name"]: skill for skill in run["skills"]}
        ends.append([label(run), *(cell_of(of[name]["end"] if name in of else None) for name in sizes)])
        changes.append([label(run), *(_plain(of[name]["change"] if name in of else None, "change") for name in sizes)])
    tables = (Table("Change since the base", heads, changes), Table("At the end", heads, ends))
    return [table for found in tables for table in _some(found)] if sizes else []


def _measures(runs: Sequence[Row]) -> Table:
    rows = []
    for run in runs:
        for row in run["measures"]:
            digits = 1 if row["name"] == "completion tokens" else 3
            ends = [cell_of(row[side], digits=digits) for side in ("base", "end")]
            rows.append([label(run), Cell(row["task"]), Cell(row["name"]), *ends])
    return Table("", ("run", "task", "measure", "base", "end"), rows, names=3)


def _pass_at(runs: Sequence[Row]) -> Table:
    ks = sorted({k for run in runs for of in run["pass_at"].values() for k in of}, key=int)
    rows = [
        [label(run), Cell(task), *(cell_of(of.get(k)) for k in ks)]
        for run in runs
        for task, of in run["pass_at"].items()
    ]
    note = "Unbiased estimates; brackets: 95 % intervals over questions."
    return Table("", ("run", "task", *(f"pass@{k}" for k in ks)), rows, note, names=2)


def _endings(runs: Sequence[Row]) -> Table:
    """With which step's model a stage ended, and what validation said of it."""
    heads = ("run", "stage", "why", "model of\nstep", "best\nstep", "validation\naccuracy", "last\nstep")
    rows = [
        [
            label(run),
            Cell(f"{row['stage']} {row['task']}", sort=row["stage"]),
            Cell(str(row.get("why", NONE))),
            _count(row.get("model_of")),
            *_mark(row.get("best")),
            *_mark(row.get("last")),
        ]
        for run in runs
        for row in run["endings"]
    ]
    return Table("", (*heads, "validation\naccuracy"), rows, "Step 0: the model that the stage began with.", names=3)


def _mark(mark: Row | None) -> list[Cell]:
    if not mark:
        return [Cell(NONE), Cell(NONE)]
    return [_count(mark["step"]), cell_of({"value": mark["validation"], "interval": None})]


def _guards(runs: Sequence[Row]) -> Table:
    rows = [
        [
            label(run),
            Cell(f"{row['stage']} {row['task']}", sort=row["stage"]),
            _count(row["step"]),
            *(Cell(str(row.get(key, ""))) for key in ("guard", "level", "text", "hint")),
        ]
        for run in runs
        for row in run["guards"]
    ]
    return Table("", ("run", "stage", "step", "guard", "level", "what", "what to turn"), rows, names=7)


# --- recipe and environment ----------------------------------------------------------------------------------------


def _settings(facts: Row, what: str) -> list[Table]:
    """What differs, a column a group; then what all have in common. Runs of a group differ in little but the seed."""
    sides = {g["name"]: [_flat(r[what]) for r in facts["runs"] if r["group"] == g["name"]] for g in facts["groups"]}
    every = [side for of in sides.values() for side in of]
    apart = [key for key in differing(every) if not _is_table(key, every)]
    rows = [[Cell(key), *(Cell(_values(key, of)) for of in sides.values())] for key in apart]
    same = [[Cell(key), Cell(shown(value))] for key, value in every[0].items() if key not in differing(every)]
    heads, title = ("setting", *sides), "Same in all runs" if len(every) > 1 else "All of it"
    fold = len(rows) > 2 * _LONG
    tables = (
        Table("Differences", heads, rows, "", len(heads), fold),
        Table(title, ("setting", "value"), same, "", 2, True),
    )
    return [table for table in tables if table.rows]


def _is_table(key: str, sides: Sequence[Mapping[str, Any]]) -> bool:
    """Whether some side has settings below ``key``, which another side has switched off as a whole."""
    return any(other.startswith(f"{key}.") for side in sides for other in side)


def _flat(tree: Row) -> dict[str, Any]:
    return dict(leaves(tree))


def _values(key: str, sides: Sequence[Mapping[str, Any]]) -> str:
    """The values of one setting in a group's runs, each once."""
    return ", ".join(dict.fromkeys(shown(side[key]) if key in side else NONE for side in sides))
