"""Why a completion carries no signal: its cause, as the log names it, and what can be done about it."""

from __future__ import annotations

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
