"""Micro tool use: a hidden rule maps each verb to a tool; the arguments are copied from the request. A row::

{"id": "micro-tooluse-train-0", "prompt": [{"role": "user", "content": "please sorate the mila for nola ."}],
 "demonstration": "okay use fankit ( mila , nola ) . okay", "answer": "fankit ( mila , nola )",
 "meta": {"key": "sorate"}}
"""

from sdft_cli.tasks._micro import rule_task

TASK = rule_task("tooluse", "call the tool that a hidden rule assigns to a verb (micro world)")
