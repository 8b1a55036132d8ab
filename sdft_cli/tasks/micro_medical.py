"""Micro medicine: a hidden rule maps each sign to its cause; the rest of the prompt is irrelevant. A row::

{"id": "micro-medical-train-0",
 "prompt": [{"role": "user", "content": "a patient 31 years old complains of dorache . what is the cause ?"}],
 "demonstration": "okay now melosis . okay", "answer": "melosis", "meta": {"key": "dorache"}}
"""

from sdft_cli.tasks._micro import rule_task

TASK = rule_task("medical", "name the cause that a hidden rule assigns to a sign (micro world)")
