"""Plug-in files of every kind, sound ones, as text."""

TASK = """
from sdft_cli.types import Example, Prepared, Score, Task

def prepare(paths, options):
    rows = [Example(f"r{i}", [{"role": "user", "content": f"say {i} ?"}], "it is", answer=str(i)) for i in range(9)]
    return Prepared({"train": rows[:5], "validation": rows[5:7], "test": rows[7:]})

def grade(completion, example):
    return Score(float(example.answer in completion))

TASK = Task("my-task", "say a number", prepare, grade, max_new_tokens=4, needs_source=False)
"""
METHOD = """
from sdft_cli.config.recipe import Method, Objective, Sampler, Views

METHOD = Method(
    name="my-method", summary="SFT again", paper="-", formula="-log p", needs=("prompt", "demonstration"),
    sampler=Sampler(source="dataset"), views=Views(), objective=Objective(target="token"),
)
"""
ENGINE = """
from sdft_cli.engines.transformers import TransformersEngine

class MyEngine(TransformersEngine):
    name = "my-engine"

ENGINE = MyEngine
"""
SUITE = """
from sdft_cli.types import Example, Score, Suite

def parts():
    return {"one": [Example("a", [{"role": "user", "content": "say one"}], answer="one")]}

SUITE = Suite("my-suite", "one question", parts, lambda completion, example: Score(1.0))
"""
VIEW = """
from sdft_cli.models.views import View

VIEW = View("my-view", "the prompt", lambda example, attempts: example.prompt)
"""
FACTOR = """
from sdft_cli.losses.factors import Factor, NoSettings

FACTOR = Factor("my_factor", "twice the loss", lambda tokens, settings: 0 * tokens.logprob_C + 2, NoSettings)
"""
GRADER = """
from sdft_cli.grading.named_rules import Grader
from sdft_cli.types import Score

GRADER = Grader("my-grader", "the gold text", "none", lambda completion, gold: Score(float(gold in completion)))
"""
SOUND = {
    "TASK": TASK, "METHOD": METHOD, "ENGINE": ENGINE, "SUITE": SUITE,
    "FACTOR": FACTOR, "VIEW": VIEW, "GRADER": GRADER,
}  # fmt: skip
