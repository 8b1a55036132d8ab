"""The recipe that a probe recommends: one for all tasks, with the reason for each value, as settings and as a file.

A recipe has one value of each key for all of its stages. Where tasks want different ones, the value that serves all is
taken, and a note says which task it is a compromise for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdft_cli.config.overrides import differences
from sdft_cli.config.recipe import METHODS, Recipe
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.config.recipe_text import number_text, recipe_text
from sdft_cli.models.views import VIEWS
from sdft_cli.training import probe_settings, probe_temperatures
from sdft_cli.training.probe_advice import clean_share, helps, sampled_share
from sdft_cli.training.probe_costs import with_method
from sdft_cli.training.probe_record import Measured, Recommendation, Setting, TaskProbe, Verdict, ViewProbe
from sdft_cli.types import Json

#: What becomes of a task with such a verdict: it is trained by self-distillation, by SFT, or not at all.
TAUGHT = ("sdft", "sdft_with_another_view", "teacher_limits", "undecided", "unscored")
LEFT_TO_SFT = ("teacher_no_better",)
#: The name that the file's comments use for the file itself.
FILE = "FILE"


def recommend(
    recipe: Recipe, measured: Measured, verdicts: Sequence[Verdict], file: str = FILE
) -> Recommendation | None:
    """The recipe for the tasks that are worth training; None where there is none. ``file`` is where it will be."""
    taught = [v for v in verdicts if v["kind"] in TAUGHT]
    chosen = taught or [v for v in verdicts if v["kind"] in LEFT_TO_SFT]
    if not chosen:
        return None
    names = [verdict["task"] for verdict in chosen]
    tasks = [task for task in measured["tasks"] if task["task"] in names]
    method, why = _method(recipe, bool(taught))
    base = recipe if method == recipe.method else with_method(recipe, method)
    settings = [
        Setting(key="tasks", value=names, reason=""),
        Setting(key="model", value=recipe.model, reason=""),
        Setting(key="data", value=recipe.data, reason=""),
        *([Setting(key="plugins", value=list(recipe.plugins), reason="")] if recipe.plugins else []),
        Setting(key="method", value=method, reason=why),
    ]
    notes = _left_out(verdicts, names, file)
    if taught:
        shared, said = _shared(base, tasks, chosen)
        settings, notes = [*settings, *shared], [*notes, *said]
    rates, reason = probe_settings.rates(base, measured["memory"]["parameters"])
    settings.append(Setting(key="train.lr", value=rates[1], reason=f"{reason}; try its neighbours with a sweep"))
    settings += probe_settings.optimization(base, [task["rows_there"] for task in tasks])
    if any(task["dropped"] for task in tasks):
        settings.append(Setting(key="train.on_bad_row", value="drop", reason="some rows cannot be used"))
    settings += _given(base, {setting["key"] for setting in settings})
    notes += [f"add --set {s['key']}=none, which a file cannot say" for s in settings if s["value"] is None]
    grid: dict[str, list[Json]] = {"train.lr": list(rates)}
    head = [*_head(measured, verdicts, grid, file), *(f"note: {note}" for note in notes)]
    text = recipe_text(head, [(s["key"], s["value"], s["reason"]) for s in settings])
    return {"settings": settings, "grid": grid, "notes": notes, "toml": text}


# --- method and view -------------------------------------------------------------------------------------------------


def _method(recipe: Recipe, taught: bool) -> tuple[str, str]:
    """The recipe's own method where it learns from a teacher that is shown something of the row, else SDFT; SFT where
    no teacher helps."""
    if not taught:
        return "sft", "no view makes the model a better teacher than it is a student, so learn the demonstrations"
    view = recipe.views.teacher
    needs = METHODS.get(recipe.method).needs
    if view is not None and not VIEWS[view].needs_attempts and "demonstration" in needs:
        return recipe.method, "as asked for"
    return "sdft", "shown more of the row, the model is a better teacher than it is a student"


def _shared(recipe: Recipe, tasks: Sequence[TaskProbe], verdicts: Sequence[Verdict]) -> tuple[list[Setting], list[str]]:
    """What the tasks share: the view, the tokens to skip, the temperature and the longest completion; and notes on
    compromises."""
    view, why, notes = _view(tasks, verdicts)
    shown = [(task, next((v for v in task["views"] if v["view"] == view), task["views"][0])) for task in tasks]
    settings = [Setting(key="views.teacher", value=view, reason=why)]
    if recipe.objective.skip_first:
        takeover = {task["task"]: task["takeover"] for task in tasks}
        skips = [(t["task"], *probe_settings.skip_first(each, takeover[t["task"]])) for t, each in shown]
        lowest, skip, reason = min(skips, key=lambda each: each[1])
        reason = reason if len(tasks) == 1 else f"{lowest}: {reason}"
        settings.append(Setting(key="objective.skip_first", value=skip, reason=reason))
        values = [(task, value) for task, value, _ in skips]
        notes += probe_settings.compromise(values, skip, "objective.skip_first")
    settings += _temperature(recipe, shown)
    limits = [(task["task"], probe_settings.new_tokens(task, each)) for task, each in shown]
    found = [(task, *limit) for task, limit in limits if limit]
    if len(found) == len(tasks):
        _, longest, reason = max(found, key=lambda each: each[1])
        settings.append(Setting(key="sampler.max_new_tokens", value=longest, reason=reason))
    return settings, notes


def _temperature(recipe: Recipe, shown: Sequence[tuple[TaskProbe, ViewProbe]]) -> list[Setting]:
    """A lower temperature where the teacher, with the view shown, needs it; the lowest that a task asks for, which
    costs the others least."""
    tasks = [task for task, _ in shown]
    sampled = [(task, view["sampled"] or task["temperatures"]) for task, view in shown]
    found = [(task["task"], probe_settings.temperature(points)) for task, points in sampled]
    asked = [(task, *each) for task, each in found if each]
    if not asked:
        return []
    task, lowest, reason = min(asked, key=lambda each: each[1])
    if lowest >= recipe.sampler.temperature:
        return []
    reason = reason if len(tasks) == 1 else f"{task}: {reason}"
    equal = "as the sampler's, so that the distributions compared are those that are sampled from"
    reasons = {"sampler.temperature": reason, "objective.logits_temperature": equal}
    return [Setting(key=key, value=lowest, reason=reasons[key]) for key in probe_temperatures.keys(recipe)]


def _view(tasks: Sequence[TaskProbe], verdicts: Sequence[Verdict]) -> tuple[str, str, list[str]]:
    """The view that helps in most tasks and has the most clean completions over all (greedy ones, to a tenth, then
    sampled ones), among those that are best for one; the reason; and notes on tasks that another would serve better."""
    wanted = {v["task"]: v["view"] for v in verdicts}
    names = list(dict.fromkeys(name for name in wanted.values() if name)) or [tasks[0]["views"][0]["view"]]
    by_task = [{view["view"]: view for view in task["views"]} for task in tasks]

    def merit(name: str) -> tuple[int, float, float]:
        views = [of_task[name] for of_task in by_task if name in of_task]
        shares = [sum(map(share, views)) / max(1, len(views)) for share in (clean_share, sampled_share)]
        return sum(map(helps, views)), round(shares[0], 1), shares[1]

    best = max(names, key=merit)
    notes = [
        f"{task} alone would be better served by views.teacher={own}: give it a stage of its own with --continue"
        for task, own in wanted.items()
        if own and own != best
    ]
    lacking = [task["task"] for task, of_task in zip(tasks, by_task, strict=True) if best not in of_task]
    notes += [f"the rows of {task} cannot show views.teacher={best}: they would carry no signal" for task in lacking]
    figures = [(task["task"], of_task[best]) for task, of_task in zip(tasks, by_task, strict=True) if best in of_task]
    return best, "; ".join(_figures(name if len(tasks) > 1 else "", view) for name, view in figures), notes


def _figures(task: str, view: ViewProbe) -> str:
    accuracy, ended, leaked = view["teacher"]["accuracy"], view["lengths"]["ended"], view["leakage"]["share"]
    parts = [f"right {accuracy:.2f}" if accuracy is not None else "not scored"]
    parts += [f"ended by itself {ended:.2f}"] if ended is not None else []
    parts += [f"leaks {leaked:.2f}"] if leaked is not None else []
    if sampled := view["sampled"]:
        last = sampled["points"][-1]
        parts += [f"sampled at temperature {last['temperature']:g} right {last['accuracy'] or 0:.2f}"]
    return f"{task + ': ' if task else ''}its teacher is {', '.join(parts)}"


# --- what stands around ----------------------------------------------------------------------------------------------


def _left_out(verdicts: Sequence[Verdict], names: Sequence[str], file: str) -> list[str]:
    """A note on every task that the recipe leaves out or cannot be sure of."""
    notes = []
    for verdict in verdicts:
        task = verdict["task"]
        if verdict["kind"] == "student_solves":
            notes.append(f"{task} is left out: the student solves it already")
        elif task not in names:
            notes.append(f"{task} is left out: add it with `sdft train --continue RUN --tasks {task} --method sft`")
        elif verdict["kind"] in ("undecided", "unscored"):
            notes.append(f"{task}: {verdict['sentence']}; these settings are a guess for it")
    return notes


def _given(recipe: Recipe, known: set[str]) -> list[Setting]:
    """The other settings that are not the defaults of this method and model: what the caller has given."""
    plain = assemble(None, {"method": recipe.method, "model": recipe.model}, [], [Path(p) for p in recipe.plugins])
    changed = {key: value for key, (_, value) in differences(plain, recipe).items() if key not in known}
    return [Setting(key=key, value=value, reason="") for key, value in changed.items()]


def _head(measured: Measured, verdicts: Sequence[Verdict], grid: dict[str, list[Json]], file: str) -> list[str]:
    rates = ",".join(map(number_text, grid["train.lr"]))
    return [
        f"From `sdft probe` on at most {measured['limit']} training rows a task, seed {measured['seed']}.",
        f"  sdft train {file} --dry-run",
        f"  sdft train {file}",
        f"  sdft sweep {file} --grid lr={rates}",
        *(f"{verdict['task']}: {verdict['sentence']}" for verdict in verdicts),
    ]
