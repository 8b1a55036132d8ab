"""Why a completion carries no signal: its cause, as the log names it, and what can be done about it."""

from __future__ import annotations

from torch import Tensor

from sdft_cli.config.recipe import Recipe
from sdft_cli.models.batching import Row
from sdft_cli.training.completions import Completion

NO_TEACHER = "no teacher prompt"
NO_ROOM = "teacher's prompt over the window"
CUT = "cut at the token limit"
SKIPPED = "no longer than skip_first"
EQUAL_REWARDS = "equal rewards"
MASKED = "no token of the assistant's"

#: Cause -> what to say of such completions, and what to do; keys stand in the phase's own table.
CAUSES: dict[str, tuple[str, str]] = {
    NO_TEACHER: ("the teacher's view has nothing to show", "choose another {table}views.teacher"),
    NO_ROOM: ("the teacher's prompts exceed the model's window", "lower {table}sampler.max_new_tokens"),
    CUT: (
        "they are cut at the token limit, and objective.mask_truncated leaves those out",
        "raise {table}sampler.max_new_tokens, or set {table}objective.mask_truncated=false",
    ),
    SKIPPED: (
        "they have no more tokens than objective.skip_first leaves out",
        "set {table}objective.skip_first=0",
    ),
    EQUAL_REWARDS: (
        "all completions of a prompt earn the same reward",
        "raise {table}sampler.n, or start from a model that sometimes succeeds",
    ),
    MASKED: ("none of their tokens is the assistant's", "check the demonstrations with `sdft train --dry-run`"),
}


def unseen(recipe: Recipe, completion: Completion, row: Row) -> str:
    """Why a whole completion is left out of the loss, whatever its tokens; empty if it is not."""
    if recipe.views.teacher is not None and row.teacher_prompt is None:
        return NO_ROOM if completion.crowded else NO_TEACHER
    return CUT if recipe.objective.mask_truncated and completion.finish == "length" else ""


def cause(recipe: Recipe, completion: Completion, row: Row, mask_L: Tensor) -> str:
    """Why a completion without any weight carries no signal; ``mask_L`` are its loss positions."""
    if left_out := unseen(recipe, completion, row):
        return left_out
    if not any(completion.mask):
        return MASKED
    return EQUAL_REWARDS if mask_L.any() else SKIPPED
