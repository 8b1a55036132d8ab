"""The report as one self-contained HTML page, from the template ``report.html.j2``."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources

from sdft_cli import console
from sdft_cli.reporting import export
from sdft_cli.reporting.excerpts import KINDS, Excerpt, RunExcerpts
from sdft_cli.reporting.plots import Drawn
from sdft_cli.reporting.report_json import Report
from sdft_cli.reporting.sections import ORDER
from sdft_cli.reporting.tables import TableGroup


def render(
    report: Report,
    sections: Mapping[str, TableGroup],
    drawn: Sequence[Drawn],
    excerpts: Sequence[RunExcerpts],
    beside: Mapping[str, Sequence[Excerpt]],
) -> str:
    """The page's HTML, with ``beside``: the same prompts, answered by several models. Model output in it is only ever
    text (autoescape), without control characters."""
    import jinja2
    from markupsafe import Markup

    source = resources.files("sdft_cli.reporting").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: console.visible(value) if type(value) is str else value,
    )
    environment.filters |= {
        "minus": export.minus,
        "interval": export.interval,
        "unbroken": _unbroken,
        "csp_hash": _csp_hash,
        "grade": _grade,
    }
    # Markup: a figure is our own drawing, and the names in it are drawn as outlines, not written as text
    figures = {figure.name: (figure, Markup(figure.svg)) for figure in drawn}
    return environment.from_string(source).render(
        report=report,
        order=ORDER,
        sections=sections,
        figures=figures,
        excerpts=excerpts,
        kinds=list(KINDS),
        beside=beside,
    )


def _grade(value: float | None) -> str:
    return "unscored" if value is None else {0.0: "wrong", 1.0: "right"}.get(value, console.number(value))


def _unbroken(text: str) -> str:
    """The text with every interval kept on one line."""
    return re.sub(r"(?<=\[)[^][]+(?=\])", lambda pair: pair[0].replace(" ", "\u00a0"), text)


def _csp_hash(script: str) -> str:
    """The hash by which the page's content security policy allows its one script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
