"""Checks of rows: which of a phase's prompts cannot be rendered or do not fit, and how long its completions may be.

A prompt that is too long is refused, or dropped with its reason; it is never truncated, because that would drop the
question. Where the task's own ``max_new_tokens`` does not fit the model's window after the longest prompt, it is
lowered to what fits; a number that the user asked for is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sdft_cli.config.recipe import METHODS, Recipe
from sdft_cli.data.completion_limits import tokens_of
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.models.chat import Chat
from sdft_cli.models.chat_template import TemplateRefusal
from sdft_cli.models.context_window import REFUSED, TOO_LONG, fit, least_of, no_room
from sdft_cli.models.views import VIEWS
from sdft_cli.training.rendered_views import Prompts
from sdft_cli.types import Dropped, Example, Suite, Task

#: Tokens of the student's and of the teacher's prompt (0 without a teacher).
Lengths = tuple[int, int]


@dataclass
class Screened:
    """What was found of a phase's rows: the ``lengths`` of those that can be rendered, the ``bad`` ones by id, and the
    most ``new_tokens`` that fit after every other prompt, or that a demonstration has. ``hint`` is that of the chat
    template's refusal."""

    lengths: dict[str, Lengths]
    bad: dict[str, Dropped]
    new_tokens: int
    notes: list[str] = field(default_factory=list)
    hint: str = ""


def lengths_of(example: Example, recipe: Recipe, chat: Chat) -> Lengths:
    """Tokens of the student's and the teacher's prompt (0 without a teacher). Raises `TemplateRefusal` where the
    chat template cannot show one."""
    names = (recipe.views.student, recipe.views.teacher)
    # a view of the batch's own completions has no length before there are any
    messages = [VIEWS[name](example) if name else None for name in names]
    switches = (recipe.views.student_thinking, recipe.views.teacher_thinking)
    student, teacher = (
        len(chat.prompt_ids(m, t, example.tools)) if m else 0 for m, t in zip(messages, switches, strict=True)
    )
    return student, teacher


def screen(examples: Sequence[Example], phase: Recipe, task: Task, chat: Chat) -> Screened:
    """The rows of one phase, whose recipe this is."""
    lengths: dict[str, Lengths] = {}
    bad: dict[str, Dropped] = {}
    hints, longest = [], 0  # tokens of the longest demonstration that is trained on
    for example in examples:
        try:
            lengths[example.id] = lengths_of(example, phase, chat)
            if phase.sampler.source == "dataset":
                trained = _check_demonstration(example, max(lengths[example.id]), phase, chat, bad)
                longest = max(longest, trained)
        except TemplateRefusal as refusal:
            lengths.pop(example.id, None)
            bad[example.id] = Dropped(example.id, REFUSED, refusal.said)
            hints.append(_hint_of(refusal, example, phase))
    limit = phase.train.max_prompt_tokens
    for row, pair in lengths.items():
        if max(pair) > limit:
            bad[row] = Dropped(row, TOO_LONG, f"{max(pair)} tokens, train.max_prompt_tokens is {limit}")
    found = Screened(lengths, bad, max(longest, wanted_tokens(phase, task)), hint=hints[0] if hints else "")
    if phase.sampler.source != "dataset":
        _fit(found, examples, phase, task, chat)
    return found


def _hint_of(refusal: TemplateRefusal, example: Example, phase: Recipe) -> str:
    """The refusal's hint, unless a system message is refused that the teacher's view has put there."""
    view = VIEWS.get(phase.views.teacher or "")
    shown = (view(example) if view else None) or example.prompt
    roles = [[message["role"] for message in messages] for messages in (shown, example.prompt)]
    if "system" in roles[0] and "system" not in roles[1]:
        return f"this model has no system message, which views.teacher={phase.views.teacher} needs: choose another view"
    return refusal.hint


def wanted_tokens(phase: Recipe, task: Task) -> int:
    """The longest completion in tokens, as far as the window allows it; ``task`` has the limit that is the phase's
    unless its sampler has a number."""
    own = phase.sampler.max_new_tokens
    return own if isinstance(own, int) else tokens_of(task)


def asked_tokens(phase: Recipe) -> bool:
    """Whether ``sampler.max_new_tokens`` is the user's own number, and no default of the method."""
    own = phase.sampler.max_new_tokens
    return isinstance(own, int) and own != METHODS.get(phase.method).sampler.max_new_tokens


def _check_demonstration(example: Example, prompt: int, phase: Recipe, chat: Chat, bad: dict[str, Dropped]) -> int:
    """The tokens that are trained on; 0, and a bad row, where they do not fit."""
    new_tokens = len(Prompts(chat, phase.views).demonstrated(example)[0])
    if prompt + new_tokens > chat.window:
        bad[example.id] = Dropped(example.id, TOO_LONG, no_room(prompt, new_tokens, chat))
        return 0
    return new_tokens


def _fit(found: Screened, examples: Sequence[Example], phase: Recipe, task: Task, chat: Chat) -> None:
    """Lower the new tokens to what fits, and add the rows that leave too little room to the bad ones."""
    longest = {row: max(pair) for row, pair in found.lengths.items() if row not in found.bad}
    wanted = found.new_tokens
    if max(longest.values(), default=0) + wanted <= chat.window:
        return
    least = wanted if asked_tokens(phase) else least_of(chat, examples, wanted)
    found.new_tokens, most, too_long = fit(longest, chat.window, wanted, least)
    for row in too_long:
        found.bad[row] = Dropped(row, TOO_LONG, no_room(longest[row], least, chat))
    if found.new_tokens < wanted:
        fits = f"completions of up to {found.new_tokens} tokens, not {wanted}, fit the model's window of {chat.window}"
        found.notes.append(f"{task.name}: {fits} after the longest prompt, {most} tokens (sampler.max_new_tokens)")


def refuse(where: str, bad: Sequence[Dropped], hint: str) -> UsageError:
    """The one error for bad rows: names the first and counts them all."""
    problem = ": ".join(filter(None, (bad[0].reason, bad[0].detail)))
    return UsageError(f"{where}: row {bad[0].where}: {problem} ({len(bad)} bad rows)", hint)


def hint_for(bad: Sequence[Dropped], found: Screened, phase: Recipe, chat: Chat) -> str:
    """What to do about a phase's bad rows."""
    if bad[0].reason == REFUSED:
        return found.hint
    if bad[0].reason != TOO_LONG:
        return "fix the rows, or add --on-bad-row drop"
    room = chat.window - max((max(pair) for pair in found.lengths.values()), default=0)
    if asked_tokens(phase) and room > 0:
        return f"lower sampler.max_new_tokens to {room} or less, shorten the prompts, or add --on-bad-row drop"
    return "shorten the prompts, lower sampler.max_new_tokens, or add --on-bad-row drop"


# --- rows that are scored --------------------------------------------------------------------------------------------


def usable(
    graded: Task | Suite, rows: list[Example], recipe: Recipe, chat: Chat, where: str
) -> tuple[list[Example], list[Dropped], list[str]]:
    """The rows that a model can be scored on, those that it cannot, and what is to be said of the others.

    Raises `UsageError` for one that it cannot be scored on, unless such rows are to be dropped; of a suite, always.
    """
    chat = chat.switched(recipe.views.student_thinking)
    conditions = Conditions.of(recipe.views.student, recipe.evaluation)
    bad = conditions.unusable(chat, graded, rows)
    names = {row.where for row in bad}
    kept = [example for example in rows if example.id not in names]
    droppable = recipe.train.on_bad_row == "drop" and isinstance(graded, Task)
    if bad and not (droppable and kept):
        more = ", or add --on-bad-row drop" if isinstance(graded, Task) else ""
        raise refuse(where, bad, conditions.hint(bad) + more)
    wanted, fits = conditions.tokens(graded), conditions.for_rows(chat, graded, kept).tokens(graded)
    if fits == wanted:
        return kept, bad, []
    text = f"is scored on completions of up to {fits} tokens, not {wanted}: more do not fit the model's window"
    return kept, bad, [f"{where} {text} of {chat.window}"]
