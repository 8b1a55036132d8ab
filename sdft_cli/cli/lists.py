"""`sdft methods`, `sdft tasks` and `sdft graders`: what can be named, plug-ins included."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING

from sdft_cli.cli.options import Json, Plugin

if TYPE_CHECKING:
    from sdft_cli.types import Task


def methods(plugin: Plugin = None, json: Json = False) -> None:
    """List the training methods: what each one does and needs."""
    from sdft_cli.config.recipe import METHODS

    listed = [METHODS.get(name) for name in METHODS.names()]
    if json:
        print(jsonlib.dumps({m.name: m.model_dump(mode="json") for m in listed}))
        return
    for m in listed:
        print(f"{m.name:18} {m.summary}\n{'':18} {m.formula}\n{'':18} needs: {', '.join(m.needs)}; paper: {m.paper}\n")


def tasks(plugin: Plugin = None, json: Json = False) -> None:
    """List the tasks and the sources they are made from."""
    from sdft_cli.plugins import TASKS

    listed = [TASKS.get(name) for name in TASKS.names()]
    if json:
        keys = ("summary", "suite", "needs_source", "source_hint", "max_new_tokens", "note")
        print(jsonlib.dumps({t.name: {**{key: getattr(t, key) for key in keys}, "hub": _hub(t)} for t in listed}))
        return
    for task in listed:
        source = task.source_hint if task.needs_source else "none, the task makes its own rows"
        print(f"{task.name:18} {task.summary}\n{'':18} source: {source}")
        if hub := task.hub:
            datasets = " and ".join(name.removeprefix("hf:") for name in hub.datasets)
            print(f"{'':18} on the hub: {datasets}; {hub.origin}; {hub.licence}")
        print()


def _hub(task: Task) -> dict[str, object] | None:
    """Where the task's public data is, as JSON."""
    hub = task.hub
    return {"datasets": list(hub.datasets), "origin": hub.origin, "licence": hub.licence} if hub else None


def graders(plugin: Plugin = None, json: Json = False) -> None:
    """List the graders that your own rows can name: what each one reads, and its known flaws."""
    from sdft_cli.grading.named_rules import GRADERS

    if json:
        keys = ("summary", "flaws", "columns", "graded")
        print(jsonlib.dumps({name: {key: getattr(each, key) for key in keys} for name, each in GRADERS.items()}))
        return
    for name, each in GRADERS.items():
        print(f"{name:18} {each.summary}")
        if each.columns:
            print(f"{'':18} reads the columns: {', '.join(each.columns)}")
        print(f"{'':18} flaws: {each.flaws}\n")
