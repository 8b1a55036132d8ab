"""Terminal output of `sdft eval`: one line per task and suite, with parts and further scores below."""

from __future__ import annotations

from collections.abc import Sequence

from sdft_cli import console
from sdft_cli.evaluation.measurement import EvalScores
from sdft_cli.runs import completeness
from sdft_cli.runs.loss_columns import text_of
from sdft_cli.runs.records import SuiteSummary, Summary, TaskSummary
from sdft_cli.runs.token_records import BaseDivergence, TokenLoss


def print_scores(scores: EvalScores) -> None:
    """Everything that was measured, and a run's metrics."""
    console.out.print(f"{scores.get('run') or scores.get('model')}", highlight=False, soft_wrap=True)
    for name, summary in scores["tasks"].items():
        _print_task(name, summary)
    if scores["suite"]:
        _print_suite(scores["suite"])
    for name, metric in scores.get("metrics", {}).items():
        if metric["value"] is not None:
            signed = console.is_change(name)
            value, interval = console.number(metric["value"], signed), console.span(metric["interval"], signed)
            print(f"{name.replace('_', ' '):22} {value}  {interval}")
    for note in scores.get("notes", []):
        console.out.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _print_suite(suite: SuiteSummary) -> None:
    """The mean length is shown only if every part has completions."""
    tokens = suite.get("mean_tokens", 0.0) if all(part.get("mean_tokens") for part in suite["parts"].values()) else 0.0
    print(_line(f"suite {suite['name']}", suite, tokens, f"  cut {suite['cut']:.3f}" if suite.get("cut") else ""))
    for name, summary in suite["parts"].items():
        print(_noted(f"  {name}", summary))
    if suite.get("note"):
        print(f"    {suite['note']}")


def _print_task(name: str, summary: TaskSummary) -> None:
    print(_line(name, summary, summary.get("mean_tokens")))
    _print_completeness(summary)
    for key, value in summary.get("extra", {}).items():
        print(f"  {key:20} {value:.3f}")
    if "ood" in summary:
        print(_line("  ood", summary["ood"], summary["ood"].get("mean_tokens")))
        _print_completeness(summary["ood"], indent="    ")
    if "oracle" in summary:
        print(_noted("  oracle", summary["oracle"]))
    if "ceiling" in summary:
        print(_noted("  ceiling", summary["ceiling"]))
    if "kl" in summary:
        _print_divergence(summary["kl"])
    if "pass_at" in summary:
        for k, estimate in summary["pass_at"]["values"].items():
            interval = _span(summary["pass_at"]["intervals"][k])
            print(f"  {f'pass@{k}':20} {console.number(estimate)}  {interval}  {summary['pass_at']['samples']} samples")
    if "loss" in summary:
        _print_loss(summary["loss"])
    if summary["note"]:
        print(f"    {summary['note']}")


def _print_completeness(summary: Summary, indent: str = "  ") -> None:
    """Of a task: that completions were cut, unless none was, and how many are exact, unless it is the accuracy."""
    width = 22 - len(indent)
    if summary.get("cut") is None and summary.get("correct") is not None:
        print(f"{indent}{'cut':{width}} not recorded by the version of sdft that measured this")
    elif summary.get("cut"):
        print(f"{indent}{'cut':{width}} {summary['cut']:.3f}  of the completions, at the limit of new tokens")
    if completeness.differs(summary.get("exact"), summary["accuracy"]):
        print(f"{indent}{'exact':{width}} {summary['exact']:.3f}  the answer or the demonstration, nothing else")


def _print_loss(loss: TokenLoss) -> None:
    print(f"  {'loss':20} {loss['value']:.4f}  {_span(loss.get('interval'))}  nats per token, {text_of(loss)}")


def _print_divergence(kl: BaseDivergence) -> None:
    for name, mean in (("kl to base", kl["to_base"]), ("kl from base", kl["from_base"])):
        print(f"  {name:20} {mean['value']:.4f}  {_span(mean['interval'])}  nats per token")


def _noted(name: str, summary: Summary) -> str:
    """A line that says all: with the share that was cut, and the note."""
    told = completeness.words({"cut": summary.get("cut")}, None)
    line = _line(name, summary, summary.get("mean_tokens"), "".join(f"  {each}" for each in told))
    return line + (f"  {summary['note']}" if summary["note"] else "")


def _line(name: str, summary: Summary, tokens: float | None, cut: str = "") -> str:
    if summary["accuracy"] is None and "metric" in summary:  # a number of the harness that is no accuracy
        return f"{name:22} {summary['metric']} {summary['metrics'][summary['metric']]:g}"
    if summary["accuracy"] is None:
        return f"{name:22} not scored ({summary['unscored']} rows)"
    length = f"  {tokens:.1f} tokens" if tokens else ""
    return f"{name:22} {summary['accuracy']:.3f}  {_span(summary['interval'])}  n {summary['n']}{length}{cut}"


def _span(interval: Sequence[float] | None) -> str:
    return console.span((interval[0], interval[1]) if interval else None)
