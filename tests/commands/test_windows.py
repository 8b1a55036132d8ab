"""Models with a small window, from `train` to `eval`: every stage is scored on the same number of tokens."""

import json
from pathlib import Path

import pytest
from support.real_model import save_model

from sdft_cli import plugins
from sdft_cli.commands.train import train
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.data import dataset
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.evaluator import Evaluator
from sdft_cli.evaluation.plan import EvalPlan
from sdft_cli.evaluation.request import EvalRequest
from sdft_cli.evaluation.target import Target
from sdft_cli.grading import task_rules
from sdft_cli.micro.tokenizer import build_tokenizer
from sdft_cli.runs.folder import Run
from sdft_cli.training.display import TrainingDisplay
from sdft_cli.types import Example, Prepared, PrepareOptions, Task

WINDOW = 72


def example(name: str, words: int = 3) -> Example:
    return Example(name, [{"role": "user", "content": "a " * words}], "it is twelve .", answer="twelve")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with learned positions: one token past its window is an IndexError."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder, tokenizer = tmp_path_factory.mktemp("gpt2"), build_tokenizer()
    config = GPT2Config(n_positions=WINDOW, n_embd=16, n_layer=1, n_head=2, vocab_size=len(tokenizer))
    config.eos_token_id, config.bos_token_id = tokenizer.eos_token_id, None
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def sayings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset whose test split has a prompt of more than the window; the task's own limit is 1024 tokens."""
    rows = {
        "train": [example(f"t{i}") for i in range(4)],
        "validation": [example("v", 9)],
        "test": [example("x", 20), example("y"), example("huge", 90)],
    }
    task = Task("sayings", "-", lambda *_: Prepared(rows), lambda text, e: task_rules.containment(text, e.answer))
    monkeypatch.setitem(plugins.TASKS.own, "sayings", task)
    dataset.write_dataset(tmp_path / "data" / "sayings", "sayings", Prepared(rows), PrepareOptions(), {})
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


@pytest.mark.parametrize("family", ["learned positions", "rotary positions"])
def test_a_run_and_an_evaluation_of_it_use_what_fits(
    gpt2: Path, sayings: Path, tmp_path: Path, family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = gpt2 if family == "learned positions" else save_model(
        tmp_path / "model", build_tokenizer(), max_position_embeddings=WINDOW
    )  # fmt: skip
    flags = {"method": "sdft", "model": str(model), "tasks": ["sayings"], "data": str(sayings), "suite": None}
    sets = ["max_steps=2", "batch=2", "threads=1", "checkpoint_every=0"]
    with pytest.raises(UsageError, match=r"test\.jsonl: row huge"):
        train(assemble(None, flags, sets), tmp_path / "run", TrainingDisplay(quiet=True))
    recipe = assemble(None, flags, [*sets, "on_bad_row=drop"])
    run = train(recipe, tmp_path / "run", TrainingDisplay(quiet=True))
    notes = json.loads((tmp_path / "run" / "notes.json").read_text())
    assert any("1 bad rows dropped" in note for note in notes) and len(notes) == len(set(notes))
    train(recipe, tmp_path / "run", TrainingDisplay(quiet=True), resume=True)  # notes are recorded once
    assert json.loads((tmp_path / "run" / "notes.json").read_text()) == notes
    settings = [
        json.loads(f.read_text())["settings"]["sayings"] for f in sorted(run.folder.glob("evals/*/scores.json"))
    ]
    longest = build_tokenizer().apply_chat_template(example("x", 20).prompt, add_generation_prompt=True)
    tokens = len(longest["input_ids"] if hasattr(longest, "keys") else longest)
    assert len(settings) == 2 and settings[0] == settings[1] and settings[0]["max_new_tokens"] == WINDOW - tokens
    capsys.readouterr()
    again = EvalPlan(EvalRequest(Target.of_run(Run.open(run.folder))))
    assert again.covers_run and "has changed" not in capsys.readouterr().err  # the dropped row is dropped here too
    # as a model by itself, with nobody to say that rows may be dropped, it is refused
    checkpoint = run.checkpoints.of(run.stages()[0]).finished()
    assert checkpoint is not None
    alone = EvalPlan(EvalRequest(Target.named(str(checkpoint.model)), tasks=("sayings",), data=sayings))
    with pytest.raises(UsageError, match=r"row huge: prompt over the limit: .* window of 72"):
        Evaluator(alone).accuracy(alone.units[0])
    few = EvalRequest(Target.named(str(checkpoint.model)), tasks=("sayings",), data=sayings, max_new_tokens=4)
    with pytest.raises(UsageError, match="row huge"):  # its prompt alone exceeds the window
        Evaluator(EvalPlan(few)).accuracy(EvalPlan(few).units[0])
