"""Gates: limits on measured values, whether they pass, and the report as JSON, JUnit XML and Markdown. Pure.

A rule says how noise is treated. ``point``: the point estimate decides. ``proven``: a gate fails only if the whole 95 %
interval lies beyond its limit. ``safe``: it passes only if the whole interval lies within. A value exactly on its limit
passes. What was not measured neither passes nor fails: it is a `UsageError`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict
from xml.etree import ElementTree

from sdft_cli.errors import UsageError, choose

Interval = tuple[float, float]
RULES = ("point", "proven", "safe")
#: Values closer than this to a limit are on it: they are means of floating-point scores.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Gate:
    """The value called ``on`` must be at most ``limit``, or at least (``least``). ``flag`` is how it was set."""

    flag: str
    on: str
    limit: float
    least: bool = False

    def __str__(self) -> str:
        return f"{self.flag} {self.limit:g}"

    @property
    def bound(self) -> str:
        return "at least" if self.least else "at most"


@dataclass(frozen=True)
class Measured:
    """A value and its 95 % interval; either is None where it is not available, and ``lack`` says why."""

    value: float | None
    interval: Interval | None = None
    lack: str = ""


@dataclass(frozen=True)
class GateResult:
    """One gate's outcome. ``beyond`` is how far the deciding figure lies past the limit (negative: within it). That is
    the value, or under ``proven`` and ``safe`` the interval's end that favours the gate, or that hurts it."""

    gate: Gate
    value: float
    interval: Interval | None
    passed: bool
    beyond: float
    rule: str

    def __str__(self) -> str:
        span = f" [{self.interval[0]:.4f}, {self.interval[1]:.4f}]" if self.interval else ""
        where = {"proven": " even at the interval's near end", "safe": " at the interval's far end"}.get(self.rule, "")
        failure = "" if self.passed else f": failed by {self.beyond:.4f}{where}"
        return f"{self.gate.on} {self.value:.4f}{span}, must be {self.gate.bound} {self.gate.limit:g}{failure}"


@dataclass(frozen=True)
class GateReport:
    """The outcomes of all gates on ``subject`` under one rule."""

    subject: str
    rule: str
    outcomes: tuple[GateResult, ...]

    @property
    def failed(self) -> tuple[GateResult, ...]:
        return tuple(o for o in self.outcomes if not o.passed)

    @property
    def code(self) -> int:
        """The exit code: 0, or 3 if a gate failed."""
        return 3 if self.failed else 0


def decide(subject: str, gates: Sequence[tuple[Gate, Measured]], rule: str = "point") -> GateReport:
    """Every gate's outcome, given what was measured. Raises `UsageError` for what was not."""
    if rule not in RULES:
        raise choose("--gate", rule, RULES)
    return GateReport(subject, rule, tuple(_outcome(gate, measured, rule) for gate, measured in gates))


def _outcome(gate: Gate, measured: Measured, rule: str) -> GateResult:
    if measured.value is None:
        raise UsageError(f"{gate}: {gate.on} was not measured", measured.lack or "measure it, or leave the gate out")
    if rule != "point" and measured.interval is None:
        hint = measured.lack or "--gate point needs none"
        raise UsageError(f"{gate}: --gate {rule} needs an interval of {gate.on}, and there is none", hint)
    deciding = _deciding(gate, measured.value, measured.interval, rule)
    beyond = gate.limit - deciding if gate.least else deciding - gate.limit
    return GateResult(gate, measured.value, measured.interval, beyond <= _TOLERANCE, beyond, rule)


def _deciding(gate: Gate, value: float, interval: Interval | None, rule: str) -> float:
    """The figure that is compared with the limit: the value, or the end of its interval that favours or hurts it."""
    if rule == "point" or interval is None:
        return value
    return interval[1] if gate.least == (rule == "proven") else interval[0]


# --- as JSON, JUnit XML and Markdown ---------------------------------------------------------------------------------


class GateRow(TypedDict):
    """One gate in ``--json``; ``bound`` is ``at least`` or ``at most``."""

    gate: str
    on: str
    limit: float
    bound: str
    value: float
    interval: Interval | None
    passed: bool
    beyond: float


class GateRecord(TypedDict):
    """The report in ``--json``; ``exit`` is the exit code."""

    subject: str
    rule: str
    passed: bool
    exit: int
    gates: list[GateRow]


def as_json(report: GateReport) -> GateRecord:
    rows: list[GateRow] = [
        {
            "gate": o.gate.flag,
            "on": o.gate.on,
            "limit": o.gate.limit,
            "bound": o.gate.bound,
            "value": o.value,
            "interval": o.interval,
            "passed": o.passed,
            "beyond": o.beyond,
        }
        for o in report.outcomes
    ]
    return {
        "subject": report.subject,
        "rule": report.rule,
        "passed": not report.failed,
        "exit": report.code,
        "gates": rows,
    }


def as_junit(report: GateReport) -> str:
    """JUnit XML as CI servers read it: one test case per gate."""
    counts = {"tests": str(len(report.outcomes)), "failures": str(len(report.failed)), "errors": "0", "skipped": "0"}
    suite = ElementTree.Element(
        "testsuite", {"name": f"sdft gates ({report.rule}): {_printable(report.subject)}", **counts}
    )
    for o in report.outcomes:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "sdft.gates", "name": _printable(str(o.gate))})
        if not o.passed:
            failure = ElementTree.SubElement(case, "failure", {"type": "gate", "message": _printable(str(o))})
            failure.text = _printable(str(o))
        ElementTree.SubElement(case, "system-out").text = _printable(str(o))
    ElementTree.indent(suite)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suite, encoding="unicode")}\n'


def as_markdown(report: GateReport, scores: Sequence[tuple[str, Measured]] = ()) -> str:
    """A summary for a pull request: how many gates failed, one row per gate, and the ``scores`` behind them."""
    n, failed = len(report.outcomes), len(report.failed)
    head = f"{failed} of {n} gates failed" if failed else f"{n} gate{'s' if n > 1 else ''} passed"
    rows = [
        f"| {'pass' if o.passed else '**FAIL**'} | `{_plain(str(o.gate))}` | {o.value:.4f} {_span(o.interval)} | "
        f"{'by ' + format(o.beyond, '.4f') if not o.passed else ''} |"
        for o in report.outcomes
    ]
    lines = [f"### sdft: {head}", "", f"`{_plain(report.subject)}`, decided by the rule `{report.rule}`", ""]
    lines += ["| | gate | value, 95 % interval | failed |", "|---|---|---|---|", *rows]
    if scores:
        lines += ["", "| | value, 95 % interval |", "|---|---|"]
        lines += [f"| {_plain(name)} | {_value(m.value)} {_span(m.interval)} |" for name, m in scores]
    return "\n".join(lines) + "\n"


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _span(interval: Interval | None) -> str:
    return f"[{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""


def _plain(text: str) -> str:
    """Text that is safe inside a table cell."""
    return re.sub(r"[`|<>\n\r]", " ", text)


def _printable(text: str) -> str:
    """Without the characters that XML 1.0 does not allow."""
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "?", text)
