"""After SFT on ten rows a model of any family writes the answer and its template's end, and stops there."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import chat_families
from support.chat_families import FAMILIES

from sdft_cli import plugins
from sdft_cli.config.recipe import Sampler
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.models import pretrained
from sdft_cli.training.batches import Batches
from sdft_cli.training.trainer import build_trainer
from sdft_cli.types import Example

NUMBERS = "one two three four five six seven eight nine ten".split()
#: family -> what stands before the answer once the model has written it
TRAINED = {
    "chatml": "",
    "chatml, base": "",
    "gemma": "",
    "phi-3": "",
    "llama-2": "",
    "qwen3-thinking": "\n</think>\n\n",
}
MORE = {"llama-3": "", "glm-4": "\n", "qwen3": "<think>\n\n</think>\n\n", "r1": "\n</think>\n\n"}


def rows() -> list[Example]:
    return [
        Example(f"row-{i}", [{"role": "user", "content": f"what is {word} ?"}], f"{word} is {i} .")
        for i, word in enumerate(NUMBERS)
    ]


@pytest.mark.parametrize("name", [*TRAINED, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_a_trained_model_writes_the_answer_and_the_templates_end_and_stops(name: str, tmp_path: Path) -> None:
    model, examples = chat_families.model(tmp_path / "model", name), rows()
    sets = ["lora.rank=0", "batch=10", "max_steps=150", "lr=3e-3", "warmup_steps=0", "schedule=constant"]
    recipe = assemble(None, {"method": "sft", "model": str(model), "tasks": ["micro-tooluse"]}, sets)
    policy = pretrained.load(str(model), recipe.runtime, recipe.lora)
    engine = TransformersEngine(policy)
    chat, task = policy.chat, plugins.TASKS.get("micro-tooluse")
    trainer = build_trainer(policy, engine, Batches(chat, recipe, task, examples, (1,), 24))
    prompts, step = [chat.prompt_ids(example.prompt) for example in examples], 0
    while trainer.step(step)["loss"] > 0.02 and step < 150:
        step += 1
    engine.sync()
    written = engine.sample(prompts, Sampler(), 24, 0, greedy=True)
    end = chat.tokenizer.convert_tokens_to_ids(FAMILIES[name].end or FAMILIES[name].eos)
    assert [rollout.finish for rollout in written] == ["stop"] * 10
    assert [rollout.ids[-1] for rollout in written] == [end] * 10
    answers = [chat.decode(rollout.ids) for rollout in written]
    before = {**TRAINED, **MORE}[name]
    assert [text.strip(" ") for text in answers] == [f"{before}{example.demonstration}" for example in examples]
    assert end in policy.stop_ids


def test_a_saved_model_names_the_end_that_only_its_template_names(tmp_path: Path) -> None:
    from transformers import GenerationConfig

    from sdft_cli.config.recipe import Runtime

    for name in ("chatml, base", "chatml", "glm-4"):
        model = chat_families.model(tmp_path / name, name)
        chat = pretrained.load_chat(str(model))
        policy = pretrained.load(str(model), Runtime())
        policy.save(tmp_path / f"{name} saved")
        named = GenerationConfig.from_pretrained(tmp_path / f"{name} saved").eos_token_id
        if name == "chatml, base":
            assert "'<|im_end|>'" in chat.notes[0] and named == [chat.eos_id, chat.end_id]
            saved = pretrained.load_chat(str(tmp_path / f"{name} saved"))
            assert not saved.notes
        else:
            assert not chat.notes and named == chat.eos_id
