"""The scores of `sdft eval` as lines of text: one a task and a suite, what stands beside them below."""

from __future__ import annotations

from typing import Any

from sdft_cli import console

Row = dict[str, Any]


def print_scores(scores: Row) -> None:
    """One line a task, the suite's parts below."""
    console.out.print(f"{scores.get('run') or scores.get('model')}", highlight=False, soft_wrap=True)
    for name, summary in scores["tasks"].items():
        _print_task(name, summary)
    if scores["suite"]:
        _print_suite(scores["suite"])
    for name, cell in scores.get("metrics", {}).items():
        if cell["value"] is not None:
            signed = console.is_change(name)
            value, ends = console.number(cell["value"], signed), console.span(cell["interval"], signed)
            print(f"{name.replace('_', ' '):22} {value}  {ends}")


def _print_suite(suite: Row) -> None:
    """A mean of tokens is shown of suites whose parts all have completions."""
    written = all(part.get("mean_tokens") for part in suite["parts"].values())
    print(_line(f"suite {suite['name']}", suite if written else {**suite, "mean_tokens": None}))
    for name, summary in suite["parts"].items():
        print(_noted(f"  {name}", summary))
    if suite.get("note"):
        print(f"    {suite['note']}")


def _print_task(name: str, summary: Row) -> None:
    print(_line(name, summary))
    for key, value in summary.get("extra", {}).items():
        print(f"  {key:20} {value:.3f}")
    if "ood" in summary:
        print(_line("  ood", summary["ood"]))
    _print_contrasts(summary)
    if "pass_at" in summary:
        for k, value in summary["pass_at"]["values"].items():
            ends = console.span(summary["pass_at"]["intervals"][k])
            print(f"  {f'pass@{k}':20} {console.number(value)}  {ends}  {summary['pass_at']['samples']} samples")
    if summary["note"]:
        print(f"    {summary['note']}")


def _print_contrasts(summary: Row) -> None:
    for kind in ("oracle", "ceiling"):
        if kind in summary:
            print(_noted(f"  {kind}", summary[kind]))
    if "kl" in summary:
        for way in ("to_base", "from_base"):
            value = summary["kl"][way]
            ends = console.span(value["interval"])
            print(f"  {f'kl {way}'.replace('_', ' '):20} {value['value']:.4f}  {ends}  nats per token")


def _noted(name: str, summary: Row) -> str:
    return _line(name, summary) + (f"  {summary['note']}" if summary["note"] else "")


def _line(name: str, summary: Row) -> str:
    if summary["accuracy"] is None and "metric" in summary:  # a number of the harness that is no accuracy
        return f"{name:22} {summary['metric']} {summary['metrics'][summary['metric']]:g}"
    if summary["accuracy"] is None:
        return f"{name:22} not scored ({summary['unscored']} rows)"
    tokens = f"  {summary['mean_tokens']:.1f} tokens" if summary.get("mean_tokens") else ""
    return f"{name:22} {summary['accuracy']:.3f}  {console.span(summary['interval'])}  n {summary['n']}{tokens}"
