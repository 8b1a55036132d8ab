"""Micro science: a hidden rule maps each substance to its class; three classes are offered. A row::

{"id": "micro-science-train-0",
 "prompt": [{"role": "user", "content": "which kind is talium : senoid , maloid or giroid ?"}],
 "demonstration": "here we go ; maloid !", "answer": "maloid", "meta": {"key": "talium"}}
"""

from sdft_cli.tasks._micro import rule_task

TASK = rule_task(
    "science", "name the kind, out of three, that a hidden rule assigns to a substance (micro world)", options=3
)
