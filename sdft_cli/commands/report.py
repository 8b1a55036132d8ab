"""``sdft report``: runs in; one self-contained HTML page, plots, and tables as Markdown, LaTeX, CSV and JSON out.

Reads run folders only; no model, no network. The page states what was measured with its intervals, and what the
intervals do not cover. Left out: a verdict on which method is better from a single seed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rich.text import Text

from sdft_cli import console
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import comparable
from sdft_cli.reporting import comparisons, excerpts, export, plots, records, summary, tables, terminal
from sdft_cli.reporting.groups import Group, groups_of, labels
from sdft_cli.runs.files import write_whole
from sdft_cli.runs.results import RunResult, load_run

Row = dict[str, Any]

#: What the page shows, from top to bottom: sections of tables, plots and excerpts by name.
ORDER = (
    *("results", "sequence", "accuracy", "pareto", "forgetting", "matrix", "curves", "changes", "skills"),
    *("measures", "pass-at-k", "training", "endings", "guards", "excerpts", "recipe", "environment"),
)
#: Completions of more runs than this are shown of each method's first one alone.
FEW = 4


def report(runs: Sequence[Path], out: Path, single: Sequence[Path] = (), forced: bool = False) -> Row:
    """Write the page, the tables, the plots and, last, ``report.json`` into ``out``; returns the JSON.

    ``single`` are runs of one task each, against which intransigence is told. Runs that were not measured alike are
    refused unless ``forced``; the warnings then say what differs.
    """
    if not runs:
        raise UsageError("no run to report on", "name run folders, such as runs/<name>")
    loaded, alone = ([load_run(folder) for folder in folders] for folders in (runs, single))
    unlike = comparable.check([found for run in [*loaded, *alone] for found in _evaluations(run)], forced)
    groups = groups_of(loaded)
    told = gather(groups, comparisons.single_task(alone), unlike)
    out.mkdir(parents=True, exist_ok=True)
    drawn = _write(told, groups, out)
    told["files"] = ["report.html", *drawn]
    write_whole(out / "report.json", json.dumps(told, indent=1) + "\n")
    return told


def gather(groups: Sequence[Group], single: Mapping[str, float] | None = None, unlike: Sequence[str] = ()) -> Row:
    """Everything the report says, as JSON. ``unlike``: how evaluations differ that were forced together."""
    told = records.gather(groups, single)
    words = {"title": summary.title(told), "summary": summary.sentences(told)}
    return {**words, "warnings": [*summary.warnings(told), *unlike], **told}


def show(told: Row) -> None:
    """What the terminal shows: the results, and accuracies by stage where they are few (else the page has them)."""
    console.out.print(Text(told["title"], style="bold"), soft_wrap=True)
    for warning in told["warnings"]:
        terminal.prose(f"WARNING: {warning}")
    found = tables.sections(told)
    for name in ("results", "matrix"):
        if name in found:
            terminal.show(found[name], folded=False)


def _evaluations(run: RunResult) -> list[tuple[str, comparable.Settings]]:
    return [(f"{run.name}, stage {stage}", settings) for stage, settings in run.settings.items()]


# --- files -------------------------------------------------------------------------------------------------------


def _write(told: Row, groups: Sequence[Group], out: Path) -> list[str]:
    """Write all but the JSON; returns the names of what stands beside the page."""
    found, drawn = tables.sections(told), plots.draw(groups, out)
    texts = {
        "report.md": _markdown(told, found, drawn),
        "tables.tex": export.latex(
            t for n in ("results", "matrix") if n in found for t in found[n].tables if not t.folded
        ),
        "runs.csv": export.runs_csv(told),
        "accuracy.csv": export.accuracy_csv(told),
        "seeds.csv": export.seeds_csv(told),
    }
    for name, text in texts.items():
        write_whole(out / name, text)
    write_whole(out / "report.html", _page(told, found, drawn, _excerpts(groups)))
    return [*texts, *(f"{plot.name}.{kind}" for plot in drawn for kind in ("png", "svg"))]


def _markdown(told: Row, found: Mapping[str, tables.TableGroup], drawn: Sequence[plots.Drawn]) -> str:
    """Title, sentences, tables and links to the plots."""
    parts = [f"# {export.plain(told['title'])}", *map(export.plain, told["summary"])]
    parts += [f"> {export.plain(warning)}" for warning in told["warnings"]]
    pictures = {plot.name: plot for plot in drawn}
    for name in ORDER:
        if name in found or name in pictures:
            parts.append(f"## {export.plain(_heading(name, found, pictures))}")
        if name in pictures:
            parts.append(f"![{pictures[name].title}]({name}.png)")
        if name in found:
            parts.append(export.markdown_section(found[name]))
    return "\n\n".join(parts) + "\n"


def _heading(name: str, found: Mapping[str, tables.TableGroup], pictures: Mapping[str, plots.Drawn]) -> str:
    return found[name].title if name in found else pictures[name].title


def _excerpts(groups: Sequence[Group]) -> list[Row]:
    """Completions of every run; of many runs, only of each method's first."""
    runs = [run for group in groups for run in group.runs]
    first = {run.method: run for run in reversed(runs)}
    named = zip(labels(groups), runs, strict=True)
    return [
        {"label": label, "units": excerpts.excerpts(run)}
        for label, run in named
        if len(runs) <= FEW or first[run.method] is run
    ]


def _page(told: Row, found: Mapping[str, tables.TableGroup], drawn: Sequence[plots.Drawn], shown: Sequence[Row]) -> str:
    """The page; model output in it is only ever text (autoescape)."""
    import jinja2
    from markupsafe import Markup

    source = resources.files("sdft_cli.reporting").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "minus": export.minus,
        "interval": export.interval,
        "unbroken": _unbroken,
        "csp_hash": _csp_hash,
        "score": _score,
    }
    pictures = {plot.name: (plot, Markup(plot.svg)) for plot in drawn}  # our own drawing: names in it are outlines
    told = {**told, "kinds": list(excerpts.KINDS)}
    return environment.from_string(source).render(told, order=ORDER, sections=found, plots=pictures, excerpts=shown)


def _score(value: float | None) -> str:
    return "unscored" if value is None else {0.0: "wrong", 1.0: "right"}.get(value, console.number(value))


def _unbroken(text: str) -> str:
    """Intervals in a sentence stay on one line."""
    return re.sub(r"(?<=\[)[^][]+(?=\])", lambda pair: pair[0].replace(" ", "\u00a0"), text)


def _csp_hash(script: str) -> str:
    """The one script that the page's content policy lets run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
