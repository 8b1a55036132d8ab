"""Gates: what a caller demands of measured values, one verdict on it, and the ways in which it is told. Pure.

A rule says what noise may decide. ``point``: the point estimate alone. ``proven``: a gate breaks only if the whole 95 %
interval lies beyond its limit. ``safe``: it passes only if the whole interval lies within. A value just on its limit
passes. What was not measured neither passes nor breaks: it is a `UsageError`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from sdft_cli.errors import UsageError, choose

Interval = tuple[float, float]
RULES = ("point", "proven", "safe")
#: Values closer than this to a limit are on it: they are means of floating-point scores.
_TOUCH = 1e-9


@dataclass(frozen=True)
class Gate:
    """A demand on the value called ``on``: at most ``limit``, or at least (``least``). ``flag`` is how it was set."""

    flag: str
    on: str
    limit: float
    least: bool = False

    def __str__(self) -> str:
        return f"{self.flag} {self.limit:g}"


@dataclass(frozen=True)
class Measured:
    """A value and its 95 % interval; either is None where it could not be had, and ``lack`` says why."""

    value: float | None
    interval: Interval | None = None
    lack: str = ""


@dataclass(frozen=True)
class GateResult:
    """One gate's fate. ``beyond`` is how far the figure that decides lies past the limit (negative: within it): the
    value, or under the rules that look at noise the interval's end nearest to the limit, or farthest past it."""

    gate: Gate
    value: float
    interval: Interval | None
    passed: bool
    beyond: float
    rule: str

    def __str__(self) -> str:
        span = f" [{self.interval[0]:.4f}, {self.interval[1]:.4f}]" if self.interval else ""
        side = "at least" if self.gate.least else "at most"
        where = {"proven": " even at the interval's near end", "safe": " at the interval's far end"}.get(self.rule, "")
        fate = "holds" if self.passed else f"broken by {self.beyond:.4f}{where}"
        return f"{self.gate.on} {self.value:.4f}{span}, wanted {side} {self.gate.limit:g}: {fate}"


@dataclass(frozen=True)
class GateReport:
    """All gates' outcomes under one rule, of ``subject``."""

    subject: str
    rule: str
    outcomes: tuple[GateResult, ...]

    @property
    def broken(self) -> tuple[GateResult, ...]:
        return tuple(o for o in self.outcomes if not o.passed)

    @property
    def code(self) -> int:
        """The exit code: 0, or 3 where a gate broke."""
        return 3 if self.broken else 0


def verdict(subject: str, asked: Sequence[tuple[Gate, Measured]], rule: str = "point") -> GateReport:
    """What becomes of every gate, given what was measured. Raises `UsageError` for what was not."""
    if rule not in RULES:
        raise choose("--gate", rule, RULES)
    return GateReport(subject, rule, tuple(_outcome(gate, measured, rule) for gate, measured in asked))


def _outcome(gate: Gate, measured: Measured, rule: str) -> GateResult:
    if measured.value is None:
        raise UsageError(f"{gate}: {gate.on} was not measured", measured.lack or "measure it, or leave the gate out")
    if rule != "point" and measured.interval is None:
        hint = measured.lack or "--gate point does without"
        raise UsageError(f"{gate}: --gate {rule} needs an interval of {gate.on}, and there is none", hint)
    deciding = _deciding(gate, measured.value, measured.interval, rule)
    beyond = gate.limit - deciding if gate.least else deciding - gate.limit
    return GateResult(gate, measured.value, measured.interval, beyond <= _TOUCH, beyond, rule)


def _deciding(gate: Gate, value: float, interval: Interval | None, rule: str) -> float:
    """The figure that is held against the limit: the value, or the end of its interval that favours or hurts it."""
    if rule == "point" or interval is None:
        return value
    return interval[1] if gate.least == (rule == "proven") else interval[0]


# --- telling it ------------------------------------------------------------------------------------------------------


def as_json(found: GateReport) -> dict[str, Any]:
    rows = [
        {
            "gate": o.gate.flag,
            "on": o.gate.on,
            "limit": o.gate.limit,
            "wanted": "at least" if o.gate.least else "at most",
            "value": o.value,
            "interval": o.interval,
            "passed": o.passed,
            "beyond": o.beyond,
        }
        for o in found.outcomes
    ]
    return {"subject": found.subject, "rule": found.rule, "passed": not found.broken, "exit": found.code, "gates": rows}


def as_junit(found: GateReport) -> str:
    """JUnit XML as CI servers read it: a test case a gate."""
    counts = {"tests": str(len(found.outcomes)), "failures": str(len(found.broken)), "errors": "0", "skipped": "0"}
    suite = ElementTree.Element(
        "testsuite", {"name": f"sdft gates ({found.rule}): {_printable(found.subject)}", **counts}
    )
    for o in found.outcomes:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "sdft.gates", "name": _printable(str(o.gate))})
        if not o.passed:
            failure = ElementTree.SubElement(case, "failure", {"type": "gate", "message": _printable(str(o))})
            failure.text = _printable(str(o))
        ElementTree.SubElement(case, "system-out").text = _printable(str(o))
    ElementTree.indent(suite)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suite, encoding="unicode")}\n'


def as_markdown(found: GateReport, scores: Sequence[tuple[str, Measured]] = ()) -> str:
    """A summary for a pull request: the verdict, a row a gate, and the ``scores`` behind it."""
    n, broken = len(found.outcomes), len(found.broken)
    head = f"{broken} of {n} gates broken" if broken else f"{n} gate{'s' if n > 1 else ''} held"
    rows = [
        f"| {'pass' if o.passed else '**FAIL**'} | `{_plain(str(o.gate))}` | {o.value:.4f} {_span(o.interval)} | "
        f"{'by ' + format(o.beyond, '.4f') if not o.passed else ''} |"
        for o in found.outcomes
    ]
    lines = [f"### sdft: {head}", "", f"`{_plain(found.subject)}`, decided by the rule `{found.rule}`", ""]
    lines += ["| | gate | measured, 95 % interval | broken |", "|---|---|---|---|", *rows]
    if scores:
        lines += ["", "| | measured, 95 % interval |", "|---|---|"]
        lines += [f"| {_plain(name)} | {_value(m.value)} {_span(m.interval)} |" for name, m in scores]
    return "\n".join(lines) + "\n"


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _span(interval: Interval | None) -> str:
    return f"[{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""


def _plain(text: str) -> str:
    """Text that can stand in a table's cell."""
    return re.sub(r"[`|<>\n\r]", " ", text)


def _printable(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "?", text)
