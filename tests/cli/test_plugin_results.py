"""What a plug-in's functions raise or return wrongly is one clear line that names the file."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import mutations
from support.plugin_files import ENGINE, FACTOR, GRADER, SUITE, TASK, VIEW

from sdft_cli import plugins
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.grading import named_rules
from sdft_cli.types import Example, PrepareOptions, Rollout, Score

ROW = Example("r1", [{"role": "user", "content": "say 1 ?"}], "it is 1", answer="1")
GRADE = "    return Score(float(example.answer in completion))\n"
PREPARE = '    return Prepared({"train": rows[:5], "validation": rows[5:7], "test": rows[7:]})\n'
SAMPLING = """
from sdft_cli.types import Rollout

class MyEngine:
    name = "my-engine"
    def __init__(self, policy, settings): ...
    def sample(self, prompts, sampler, max_new_tokens, seed, greedy=False): return RESULT
    def sync(self): return 0
    def close(self): ...

ENGINE = MyEngine
"""


def returning(body: str) -> str:
    """The task with another grader."""
    return TASK.replace(GRADE, f"    {body}\n")


def loaded(tmp_path: Path, text: str):
    """The only thing that a plug-in file brings."""
    (tmp_path / "my.py").write_text(text)
    [(variable, name)] = plugins.load_file(tmp_path / "my.py")
    return plugins.room(variable).get(name)


def complaint(call, *arguments: object) -> str:
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    assert "\n" not in caught.value.message and caught.value.hint and len(caught.value.message) < 300
    return caught.value.message


@pytest.fixture(autouse=True)
def _unloaded():
    yield
    plugins.unload_all()


GRADES = {
    "return None": "my.py: TASK.grade must return a Score (sdft_cli.types.Score), not None",
    "return True": "my.py: TASK.grade must return a Score (sdft_cli.types.Score), not bool",
    "return 'right'": "TASK.grade must return a Score (sdft_cli.types.Score), not str",
    "return Score('x')": "TASK.grade must return a Score whose value is a number, not 'x'",
    "return Score(float('nan'))": "TASK.grade must return a Score whose value is a number, not nan",
    "return Score(2)": "TASK.grade must return a Score whose value is from 0 to 1, or None (unscored), not 2",
    "return Score(-0.5)": "from 0 to 1, or None (unscored), not -0.5",
    "return Score(1.0, 7)": "TASK.grade must return a Score whose 'extracted' and 'why' are text",
    "return Score(1.0, extra={'strict': None})": "TASK.grade must return a Score whose strict is a number, not None",
    "return Score(1.0, extra=[])": "TASK.grade must return a Score whose extra is a number, not []",
    "return 1 / 0": "my.py:9: TASK.grade: ZeroDivisionError: division by zero",
    "return example.nothing": "my.py:9: TASK.grade: AttributeError: 'Example' object has no attribute",
}


@pytest.mark.parametrize("body", GRADES)
def test_a_grade_is_a_score(body: str, tmp_path: Path) -> None:
    assert GRADES[body] in complaint(loaded(tmp_path, returning(body)).grade, "1", ROW)


@pytest.mark.parametrize(
    ("body", "value"), [("Score(True)", 1.0), ("Score(numpy.float32(0.5))", 0.5), ("Score(None)", None)]
)
def test_a_score_is_kept_as_a_plain_number(body: str, value: float | None, tmp_path: Path) -> None:
    score = loaded(tmp_path, "import numpy\n" + returning(f"return {body}")).grade("1", ROW)
    assert type(score.value) is type(value) and score == Score(value)


def test_what_a_functions_own_errors_say_is_left_alone(tmp_path: Path) -> None:
    body = "from sdft_cli.errors import SdftError; raise SdftError('as it is')"
    with pytest.raises(SdftError, match="as it is"):
        loaded(tmp_path, returning(body)).grade("1", ROW)
    with pytest.raises(KeyboardInterrupt):
        loaded(tmp_path, returning("raise KeyboardInterrupt")).grade("1", ROW)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return None", "TASK.prepare must return a Prepared (sdft_cli.types.Prepared), not None"),
        (
            "return Prepared({'train': None})",
            "TASK.prepare must return a list of Example (sdft_cli.types.Example), not",
        ),
        ("return Prepared([rows])", "TASK.prepare must return a dict of lists of Example by name, not"),
        ("return Prepared({'train': ['x']})", "TASK.prepare must return a list of Example (sdft_cli.types.Example)"),
        ("raise OSError('gone')", "my.py:6: TASK.prepare: OSError: gone"),
    ],
)
def test_prepared_rows_are_examples(body: str, says: str, tmp_path: Path, sdft) -> None:
    text = TASK.replace(PREPARE, f"    {body}\n")
    assert says in complaint(loaded(tmp_path, text).prepare, [], PrepareOptions())
    code, out, err = sdft("prepare", "--plugin", "my.py", "--tasks", "my-task")
    assert code == 2 and not out and says in err and len(err.splitlines()) == 2 and not Path("data").exists()


def test_a_suites_parts_are_examples(tmp_path: Path) -> None:
    suite = loaded(tmp_path, SUITE.replace('return {"one":', 'return 3 or {"one":'))
    assert "SUITE.parts must return a dict of lists of Example by name, not 3" in complaint(suite.parts)
    suite = loaded(tmp_path, SUITE.replace("Score(1.0)", "1.0"))
    assert "SUITE.grade must return a Score (sdft_cli.types.Score), not float" in complaint(suite.grade, "1", ROW)


def test_a_view_is_messages(tmp_path: Path) -> None:
    for result in ("'text'", "[]", "['text']", "{}"):
        view = loaded(tmp_path, VIEW.replace("example.prompt)", f"{result})"))
        if result == "[]":
            assert view(ROW) == []
        else:
            assert "VIEW.render must return a list of messages" in complaint(view, ROW)
    assert loaded(tmp_path, VIEW)(ROW) == ROW.prompt


def test_a_factor_is_a_number_for_each_token(tmp_path: Path) -> None:
    tokens = SimpleNamespace(logprob_C=torch.zeros(4))
    for result in ("2.0", "None", "tokens.logprob_C.sum()", "tokens.logprob_C[:2]"):
        factor = loaded(tmp_path, FACTOR.replace("0 * tokens.logprob_C + 2", result))
        assert "FACTOR.weigh must return a tensor [C], a number for each of 4 tok" in complaint(
            factor.weigh, tokens, factor.settings()
        )
    factor = loaded(tmp_path, FACTOR)
    assert factor.weigh(tokens, factor.settings()).tolist() == [2.0] * 4


def test_a_grader_and_what_it_makes_give_scores(tmp_path: Path) -> None:
    grader = loaded(tmp_path, GRADER.replace("Score(float(gold in completion))", "gold in completion"))
    assert "GRADER.grade must return a Score" in complaint(grader.grade, "1", "1")
    loaded(tmp_path, GRADER.replace("gold in completion)))", "True)), compiled=lambda pattern: lambda c, g: 1.0)"))
    made = named_rules.GRADERS["my-grader"].compiled("x")
    assert "GRADER.grade must return a Score" in complaint(made, "1", "1")


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ("None", "ENGINE.sample must return a list of Rollout (sdft_cli.types.Rollout), not None"),
        ("[]", "ENGINE.sample must return a rollout for each of 2 prompts, not 0"),
        ("[Rollout(p, [99], [0.0], 'stop') for p in prompts]", "rollouts of ids from 0 to 9, not 99"),
        ("[Rollout(p, [-1], [0.0], 'stop') for p in prompts]", "rollouts of ids from 0 to 9, not -1"),
        ("[Rollout(p, ['a'], [0.0], 'stop') for p in prompts]", "rollouts of ids from 0 to 9, not 'a'"),
        ("[Rollout(p, [1, 2], [0.0], 'stop') for p in prompts]", "a log-prob for each id, not 1 for 2"),
        ("[1 / 0]", "my.py:7: ENGINE.sample: ZeroDivisionError: division by zero"),
    ],
)
def test_an_engine_gives_a_rollout_for_each_prompt(result: str, says: str, tmp_path: Path) -> None:
    core = SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(10, 2))
    engine = loaded(tmp_path, SAMPLING.replace("RESULT", result))(SimpleNamespace(core=core), None)
    assert engine.policy.core is core  # it keeps its policy, whether or not its author knew
    assert says in complaint(engine.sample, [[1], [2]], None, 4, 0)
    engine = loaded(tmp_path, SAMPLING.replace("RESULT", "[Rollout(p, [3], [0.0], 'stop') for p in prompts]"))
    prompts = [[1], [2]]
    assert engine(SimpleNamespace(core=core), None).sample(prompts, None, 4, 0) == [
        Rollout(p, [3], [0.0], "stop") for p in prompts
    ]


def test_an_engines_own_check_is_watched_too(tmp_path: Path) -> None:
    for kind in ("staticmethod", "classmethod"):
        first = "cls, " if kind == "classmethod" else ""
        text = SAMPLING.replace(
            "    def sync", f"    @{kind}\n    def check({first}settings): settings.gone\n    def sync"
        )
        engine = loaded(tmp_path, text.replace("RESULT", "[]"))
        assert "my.py:9: ENGINE.check: AttributeError: 'str' object has no attribute" in complaint(engine.check, "x")


def test_an_engine_of_a_plugin_is_still_what_it_was(tmp_path: Path) -> None:
    engine = loaded(tmp_path, ENGINE)
    assert engine.name == "my-engine" and engine.__name__ == "MyEngine"
    assert any(base.__name__ == "TransformersEngine" for base in engine.__mro__)


def test_a_grader_that_fails_in_a_run_is_one_line(tmp_path: Path, tiny_model: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--plugin", "my.py", "--tasks", "my-task"]
    (tmp_path / "my.py").write_text(TASK)
    assert not mutations.run("prepare", *words, codes=(0,)).problem
    (tmp_path / "my.py").write_text(returning("return completion"))
    for command in (["prepare"], ["eval", str(tiny_model), "--limit", "1"]):  # `prepare` grades the gold answers
        outcome = mutations.run(*command, *words)
        assert outcome.code == 2 and not outcome.problem
        assert "my.py: TASK.grade must return a Score (sdft_cli.types.Score), not str" in outcome.err
