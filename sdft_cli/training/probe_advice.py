"""What follows from a probe: which view serves a task best, whether self-distillation can work, and warnings.

The rules, with their thresholds as constants; those for the settings of a recipe are in `probe_settings`. A difference
counts only if its 95 % interval leaves out zero, but for that between sampled teachers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sdft_cli import console
from sdft_cli.evaluation import scorable
from sdft_cli.runs.records import Summary
from sdft_cli.training.probe_record import Advice, TaskProbe, Verdict, VerdictKind, ViewProbe
from sdft_cli.training.probe_settings import sampled_words, temperature
from sdft_cli.training.probe_temperatures import keeps

#: Accuracy of a teacher below which it teaches errors as often as not: a student ends near its teacher.
WEAK = 0.5
#: Accuracy of a student from which on there is nothing left to teach, and how sure that must be (the lower end).
SOLVED, SOLVED_AT_LEAST = 0.95, 0.8
#: A gain that would be worth training for: if the interval leaves room for it, more rows may decide.
WORTHWHILE = 0.1
#: Views with this share of the best one's clean completions are about equal to it.
ABOUT_EQUAL = 0.8
#: How many more of its sampled completions must be clean for a view to take the place of the recipe's own: 4 of 16.
SAMPLED_BETTER = 0.25
#: The most views whose teachers are sampled, to choose among those that are about equal greedily.
CONTENDERS = 3
#: The share of rows that are too long from which on that is worth a word.
MANY_TOO_LONG = 0.05
#: The share of a teacher's completions that are cut, or repeat the view, from which on that is worth a word.
MANY_CUT, MANY_LEAKED = 0.2, 0.2

#: What kind of warning, the message, and the hint.
Reason = tuple[str, str, str]


# --- the view --------------------------------------------------------------------------------------------------------


def helps(view: ViewProbe) -> bool:
    """Whether the teacher is better than the student, beyond noise."""
    return view["gain"] is not None and view["gain"]["interval"][0] > 0


def best_view(views: Sequence[ViewProbe]) -> ViewProbe:
    """The view to train with; the first one is the recipe's own, and stays unless another is better beyond noise.

    Views are compared by their clean completions: right, ended by themselves, and without the view's wording. A student
    learns all of that, so a teacher that is right but rambles is no good one. Among those that are about equal so, the
    one whose teacher has the most when it is sampled, because that is what is learned; on so few rows, a fixed margin
    (`SAMPLED_BETTER`) stands for the interval.
    """
    own, equal = views[0], contenders(views)
    cleaner = [view for view in equal if view["clean_gain"] and view["clean_gain"]["interval"][0] > 0]
    if not helps(own):
        return max(equal, key=_sampled_of(equal), default=own)
    if cleaner:
        return max(cleaner, key=_sampled_of(equal))
    best = max(equal, key=_sampled_of(equal), default=own)
    known = own["sampled"] and best["sampled"] and any(view is own for view in equal)
    return best if known and _sampled_of(equal)(best) >= _sampled_of(equal)(own) + SAMPLED_BETTER else own


def contenders(views: Sequence[ViewProbe]) -> list[ViewProbe]:
    """The views that help and have about as many clean completions as the best of them: the recipe's own, if it is one
    of them, then the others in order, `CONTENDERS` at most.

    A view that shows the demonstration goes before one that does not: its teacher follows the demonstration's form,
    which others cannot know."""
    helping = [view for view in views if helps(view)]
    helping = [view for view in helping if view["demonstrates"]] or helping
    most = max(map(clean_share, helping), default=0.0)
    equal = [view for view in helping if clean_share(view) >= ABOUT_EQUAL * most]
    return sorted(equal, key=lambda view: (view is views[0], clean_share(view)), reverse=True)[:CONTENDERS]


def sampled_share(view: ViewProbe) -> float:
    """The share of its sampled completions that are clean, at the lowest temperature tried; 0 where that was not
    measured."""
    return view["sampled"]["points"][-1]["clean"] if view["sampled"] else 0.0


def _sampled_of(equal: Sequence[ViewProbe]) -> Callable[[ViewProbe], float]:
    """The share of a view's sampled completions that are clean, at the lowest temperature at which all were sampled; 0
    where that was not measured."""
    measured = [len(view["sampled"]["points"]) for view in equal if view["sampled"]]
    last = min(measured, default=0) - 1

    def clean(view: ViewProbe) -> float:
        return view["sampled"]["points"][last]["clean"] if view["sampled"] and last >= 0 else 0.0

    return clean


def clean_share(view: ViewProbe) -> float:
    """The share of clean completions; 0 where nothing was scored."""
    return view["clean"]["value"] if view["clean"] else 0.0


# --- the verdict -----------------------------------------------------------------------------------------------------


def verdict(task: TaskProbe) -> Verdict:
    """What the figures of one task come to."""
    best = best_view(task["views"])
    kind = _kind(task, best)
    useful = kind in ("sdft", "sdft_with_another_view", "teacher_limits")
    sentence, todo = _words(kind, task, best if useful else max(task["views"], key=_gained))
    view = best["view"] if useful else None
    return {"task": task["task"], "kind": kind, "sentence": sentence, "todo": todo, "view": view}


def _gained(view: ViewProbe) -> float:
    return view["gain"]["value"] if view["gain"] else float("-inf")


def _kind(task: TaskProbe, best: ViewProbe) -> VerdictKind:
    student, views = task["student"], task["views"]
    gains = [view["gain"] for view in views if view["gain"] is not None]
    if not gains:
        return "unscored"
    if (student["accuracy"] or 0) >= SOLVED:
        sure = student["interval"] is not None and student["interval"][0] >= SOLVED_AT_LEAST
        return "student_solves" if sure or task["rows"] >= task["rows_there"] else "undecided"
    if helps(best):
        if (best["teacher"]["accuracy"] or 0) < WEAK:
            return "teacher_limits"
        return "sdft" if best is views[0] else "sdft_with_another_view"
    hopeless = all(view["teacher"]["interval"] and view["teacher"]["interval"][1] < WEAK for view in views)
    room = max(gain["interval"][1] for gain in gains) >= WORTHWHILE
    more = task["rows"] < task["rows_there"]
    return "undecided" if room and more and not hopeless else "teacher_no_better"


def _words(kind: VerdictKind, task: TaskProbe, best: ViewProbe) -> tuple[str, str]:
    """The sentence with its numbers, and what to do."""
    student, teacher, own = task["student"], best["teacher"], task["views"][0]
    rates = f"the teacher is right on {_rate(teacher)} of {best['rows']} rows, the student on {_rate(student)}"
    if kind == "unscored":
        return "no row could be scored for both student and teacher", _needed(task)
    if kind == "student_solves":
        return f"the student already solves {_rate(student)} of the rows", "leave the task out"
    if kind == "sdft":
        return f"SDFT can work: {rates}{_clean_words(best)}", "train with the recipe below"
    if kind == "sdft_with_another_view":
        clean = f"clean on {console.number(clean_share(best), digits=2)} of them"
        before = f"{console.number(clean_share(own), digits=2)} with {own['view']}"
        sentence = f"SDFT can work with the view {best['view']}: {rates}; its completions are {clean}, {before}"
        if best["sampled"] and own["sampled"]:
            share = _sampled_of((best, own))
            shares = [console.number(share(view), digits=2) for view in (best, own)]
            sentence += f"; when they are sampled, on {shares[0]}, {shares[1]} with {own['view']}"
        return sentence, f"set views.teacher={best['view']}"
    if kind == "teacher_limits":
        limit = f"SDFT can help, but the teacher limits it to about {_rate(teacher)}: {rates}"
        return limit, "compare with SFT (--grid method=sdft,sft), improve the demonstrations, or use a larger model"
    if kind == "undecided":
        span = console.span(best["gain"]["interval"], signed=True) if best["gain"] else "-"
        return f"not decided on {task['rows']} rows: {rates}; the difference may be anything in {span}", "raise --limit"
    any_view = ", with any view" if len(task["views"]) > 1 else ""
    todo = "train with SFT, improve the demonstrations, or use a larger model"
    return f"the teacher is no better than the student{any_view}: {rates}", todo


def _rate(summary: Summary) -> str:
    return f"{console.number(summary['accuracy'], digits=2)} {_span(summary['interval'])}".strip()


def _span(interval: Sequence[float] | None) -> str:
    return f"[{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""


def _clean_words(view: ViewProbe) -> str:
    accuracy, clean = view["teacher"]["accuracy"] or 0, clean_share(view)
    if view["clean"] is None or accuracy - clean < MANY_CUT:
        return ""
    return f"; only {console.number(clean, digits=2)} are right, end by themselves and repeat nothing of the view"


def _needed(task: TaskProbe) -> str:
    needed = "demonstrations and answers: see data/README.md and `sdft prepare --demonstrations answer`"
    asked = task["student"]["unscored"] and task["teacher"]["unscored"]  # both have answered
    return scorable.HINT if asked else f"the rows need {needed}"


# --- warnings about the recipe as it is ------------------------------------------------------------------------------


def advise(task: TaskProbe) -> list[Advice]:
    """The warnings about one task."""
    about = (_about_teacher, _about_completions, _about_sampling, _about_rows, _about_steps)
    reasons = [reason for part in about for reason in part(task)]
    return [{"task": task["task"], "what": what, "message": message, "hint": hint} for what, message, hint in reasons]


def _about_teacher(task: TaskProbe) -> Iterator[Reason]:
    gain = task["gain"]
    if gain is None:
        yield "unknown", "no row could be scored for both student and teacher", _needed(task)
        return
    view = _other_view(task) or "check a row with `sdft train --dry-run`, or try a stronger model"
    low, high = gain["interval"]
    difference = f"{console.number(gain['value'], signed=True)} {console.span(gain['interval'], signed=True)}"
    if high < 0:
        yield "teacher_worse", f"the teacher is worse than the student: {difference}", view
    elif low <= 0:
        message = f"the teacher is not clearly better than the student: {difference} includes 0"
        yield "teacher_not_better", message, _other_view(task) or f"raise --limit for a narrower interval; {view}"
    student, teacher = task["student"]["accuracy"], task["teacher"]["accuracy"]
    if teacher is not None and teacher < WEAK:
        yield "teacher_weak", f"the teacher is right on only {teacher:.0%} of the rows: it will teach errors", view
    if student is not None and student > SOLVED:
        yield "student_solves", f"the student already solves {student:.0%} of the rows", "leave the task out"


def _about_completions(task: TaskProbe) -> Iterator[Reason]:
    """Of the recipe's own view: what the student would learn besides the answer."""
    own = task["views"][0]
    ended, leaked = own["lengths"]["ended"], own["leakage"]["share"]
    if ended is not None and 1 - ended >= MANY_CUT:
        message = f"{1 - ended:.0%} of the teacher's completions are cut at {task['max_new_tokens']} tokens"
        hint = _other_view(task) or "use a view whose completions end, or raise sampler.max_new_tokens"
        yield "teacher_cut", f"{message}: the student will learn to run on", hint
    if leaked is not None and leaked >= MANY_LEAKED:
        said = ", ".join(f"{phrase!r}" for phrase in own["leakage"]["phrases"][:3])
        message = f"{leaked:.0%} of the teacher's completions repeat wording of the view {own['view']}: {said}"
        hint = _other_view(task) or "write a view in other words (CONTRIBUTING.md, 'Add a view or a grader')"
        yield "leakage", f"{message}: the student will learn these words", hint


def _other_view(task: TaskProbe) -> str:
    """The hint to take the view that is better than the recipe's own; empty where none is."""
    best = best_view(task["views"])
    return "" if best is task["views"][0] else f"set views.teacher={best['view']}"


def _about_sampling(task: TaskProbe) -> Iterator[Reason]:
    """Of the best view: what is learned is the teacher as it is sampled."""
    found = task["temperatures"]
    if not found or not found["keys"] or keeps(found["points"][0], found["greedy"]):
        return
    lower, words = temperature(found) or (found["points"][0]["temperature"], sampled_words(found))
    hint = "set " + " ".join(f"{key}={lower:g}" for key in found["keys"])
    if lower >= found["points"][0]["temperature"]:
        tried = len(found["points"]) > 1
        hint = "improve the demonstrations, or use a larger model" if tried else f"lower {' and '.join(found['keys'])}"
    yield "teacher_flat", f"{words}: the student will learn what is sampled", hint


def _about_rows(task: TaskProbe) -> Iterator[Reason]:
    p = task["prompts"]
    if p["too_long"] > MANY_TOO_LONG * p["rows"]:
        message = (
            f"{p['too_long']} of {p['rows']} prompts are too long ({p['over_max_prompt_tokens']} over "
            f"train.max_prompt_tokens={p['max_prompt_tokens']}, {p['over_window']} over the window of {p['window']})"
        )
        hint = "raise the limit, shorten the demonstrations, or use a model with a longer window"
        yield "prompts_too_long", message, hint


def _about_steps(task: TaskProbe) -> Iterator[Reason]:
    phases = task["training"]["phases"]
    if any(phase["seconds"] is None for phase in phases):
        hint = "lower train.micro_batch_tokens or engine.max_batch, or set lora.rank"
        yield "out_of_memory", "a training step does not fit into memory", hint
    elif any(phase["signal"] == 0 for phase in phases):
        message = "no row of the timed step carried a signal: such steps change nothing, and others take longer"
        hint = "equal rewards teach nothing: raise sampler.n, or start from a model that sometimes succeeds"
        yield "no_signal", message, hint
