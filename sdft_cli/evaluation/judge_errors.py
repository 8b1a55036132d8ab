"""Errors of a language model that is asked as a judge, in the words of a judge's flags and limits."""

from __future__ import annotations

import re

from sdft_cli.errors import GateError, SdftError


def in_own_words(error: SdftError) -> SdftError:
    """The error of a language model, which speaks of a teacher's flags, in those of a judge. A limit that is reached is
    no gate here: in an evaluation, gates are about scores."""
    message, hint = error.message, error.hint
    for theirs, ours in _FLAGS:
        message, hint = re.sub(theirs, ours, message), re.sub(theirs, ours, hint)
    if isinstance(error, GateError):
        key = "max_cost" if "judge.max_cost" in message else "max_requests"
        return SdftError(
            message, f"raise it with --set judge.{key}=…: every reply is stored, so none is paid for twice"
        )
    return type(error)(message, hint)


_FLAGS = (
    (r"--max-requests (\d+)", r"judge.max_requests=\1"),
    (r"--max-cost (\S+)", r"judge.max_cost=\1"),
    (r"raise --max-tokens, or have", "have"),
    (r", such as by --send .*", ": its endpoint's settings decide that"),
    (
        r", name another variable with --api-key-env, or a file with --api-key-file",
        ", or name another variable with --judge-key-env; name another endpoint with --judge-base-url",
    ),
    (r",? or (a file with )?--api-key-file( FILE)?", ""),
    (r"--api-key-env", "--judge-key-env"),
    (r"(?<!judge)--base-url", "--judge-base-url"),
)
