"""What the tables of README and of the recipes' index say is what is there: methods, predicted memory, recipes."""

import ast
import importlib.util
import math
import re

import pytest
import torch
from support.pages import ROOT, read, section, tables
from transformers import AutoModelForCausalLM, Qwen2Config

from sdft_cli.config.recipe import METHODS
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.models import adapters
from sdft_cli.training.memory_model import Load, dims, predict
from sdft_cli.training.memory_shards import counts_of

PAGE = read("README.md")
GIB = 1 << 30
(_ASSIGNMENT,) = re.findall(r"^SHAPES = (\{.*?^\})", (ROOT / "benchmarks" / "gpu.py").read_text(), re.S | re.M)
#: Qwen2.5's published shapes: hidden, inner, layers, heads, key heads, vocabulary, tied.
SHAPES = ast.literal_eval(_ASSIGNMENT)
SETTINGS = {
    "all weights, defaults": [],
    "all weights, lean": ["train.master=stochastic", "train.optimizer=adamw8bit", "teacher.storage=half"],
    "LoRA, rank 64": ["rank=64"],
}
PROMPT, COMPLETION, SAMPLED = 512, 2048, 32


def test_the_table_of_methods_is_that_of_the_code() -> None:
    """Name, summary and paper; the formulas are set by hand."""
    (rows,) = tables(section(PAGE, "Methods"))
    shown = {name.strip("`"): (summary, paper) for name, summary, _, paper in rows}
    shipped = [p.stem.replace("_", "-") for p in (ROOT / "sdft_cli" / "methods").glob("[!_]*.py")]
    methods = [METHODS.get(name) for name in shipped]
    expected = {m.name: (m.summary, m.paper.replace("-", "–") if m.paper == "-" else m.paper) for m in methods}
    missing = {name: row for name, row in expected.items() if shown.get(name) != row}
    assert not missing, "rows to write:\n" + "\n".join(f"| `{n}` | {s} | … | {p} |" for n, (s, p) in missing.items())
    assert set(shown) == set(expected)


@pytest.mark.parametrize("size", SHAPES)
def test_the_table_of_memory_is_what_is_predicted(size: str) -> None:
    table = section(PAGE, "Install")
    heads = re.findall(r"[\d.]+B(?= \|)", table.partition("|---")[0])
    (rows,) = tables(table)
    shown = {row[0]: row[1:][heads.index(size)] for row in rows}
    assert shown == {name: str(math.ceil(least_bytes(size, sets) / GIB)) for name, sets in SETTINGS.items()}


def least_bytes(size: str, sets: list[str]) -> int:
    """The peak of a step that scores one sequence at a time with gradient checkpointing, in bf16 on a GPU."""
    hidden, inner, layers, heads, keys, vocabulary, tied = SHAPES[size]
    config = Qwen2Config(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
    )
    recipe = assemble(None, {"tasks": ["tooluse"], "model": "a-shape"}, sets)
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config)
        model = adapters.attach_untrained(plain, "a-shape", recipe.lora) or plain
    length = PROMPT + COMPLETION
    load = Load(length, COMPLETION, length, accumulate=True, rows=SAMPLED, recompute=True)
    return predict(recipe, dims(config), counts_of(model), 2, load, "cuda").peak


def test_the_memory_table_says_what_it_assumes() -> None:
    text = " ".join(section(PAGE, "Install").replace(",", "").split())
    assert f"prompts of {PROMPT} and completions of {COMPLETION} tokens" in text
    assert all(setting in PAGE for setting in SETTINGS["all weights, lean"])


@pytest.mark.parametrize("folder", ["recipes", "recipes/ci"])
def test_every_recipe_has_a_line_in_its_index(folder: str) -> None:
    index = read(f"{folder}/README.md")
    files = [p.name for p in (ROOT / folder).iterdir() if p.is_file() and p.suffix != ".md"]
    assert files and not [name for name in files if f"]({name})" not in index]


def test_recipes_import_what_is_there() -> None:
    for path in sorted((ROOT / "recipes").rglob("*")):
        if path.suffix in (".py", ".sh"):
            for module in re.findall(r"^from (sdft_cli[\w.]*) import", path.read_text(), re.M):
                assert importlib.util.find_spec(module), f"{path.name}: no module {module}"
