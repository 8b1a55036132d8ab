"""The script that compares mathematical expressions; started by `workers`, never imported.

Reads one JSON object a line from standard input, ``{"gold": [texts], "given": [texts], "seconds": n}``, and answers
with one: ``right`` and ``read`` (the given expression as it was understood), or ``unscored`` with a reason. The first
text of each list that can be parsed counts. math-verify parses and sympy compares; both may hang, so a question that
takes more than ``seconds`` of processor time ends this process, by a signal that needs no help from Python.
"""

import json
import logging
import os
import signal
import sys

#: Bytes of memory: 9^(9^9) must not take the machine's.
MEMORY = 4 << 30


def limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # a system without limits still has the time


def limit_time(seconds: float) -> None:
    """End this process after ``seconds`` of its processor time; 0 lifts the limit."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # no library's print comes between two replies

    def reply(value: dict) -> None:
        replies.write(json.dumps(value) + "\n")
        replies.flush()

    limit_memory()
    logging.disable(logging.CRITICAL)
    try:
        from math_verify import parse, verify
    except Exception as error:
        reply({"failed": f"{type(error).__name__}: {error}"})
        return
    reply({"ready": True})

    def parsed(texts: list) -> list:
        found = (parse(text, parsing_timeout=None) for text in texts)
        return next((expressions for expressions in found if expressions), [])

    def verdict(order: dict) -> dict:
        gold, given = parsed(order["gold"]), parsed(order["given"])
        if not gold:
            return {"unscored": "the gold answer cannot be read as mathematics"}
        right = bool(given) and verify(gold, given, timeout_seconds=None)
        return {"right": right, "read": str(given[0])[:200] if given else None}

    for line in sys.stdin:
        order = json.loads(line)
        limit_time(order["seconds"])
        try:
            answer = verdict(order)
        except (Exception, MemoryError) as error:
            answer = {"unscored": f"comparing failed: {type(error).__name__}"}
        limit_time(0)
        reply(answer)


if __name__ == "__main__":
    main()
