"""Any value of any key is taken or refused in one line; every key has its line of description."""

from pathlib import Path

import pytest

from sdft_cli.config.recipe import Recipe, descriptions, paths
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.config.sweep_grid import SweepArguments, grids_of
from sdft_cli.errors import UsageError

VALUES = ("1e400", "nan", "-1", "''", "'x'", "[]", "{}", "[{}]", "true", "1979-05-27", "{a=1}", "'\\u0000'")
BESIDES = (
    "methods",
    "methods.sft",
    "methods.sft.grid",
    "methods.sft.methods",
    "methods.no",
    "grid",
    "grid.lr",
    "grid.lrr",
)


@pytest.mark.parametrize("value", VALUES)
def test_a_value_of_any_key_is_taken_or_refused_in_one_line(value: str, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    for key in (*paths(), *BESIDES):
        file.write_text(f"{key} = {value}\n")
        for attempt in (
            lambda: assemble(file, {}, []),
            lambda: grids_of(SweepArguments(str(file), {}, [], [], [], [0], False)),
            lambda key=key: assemble(None, {}, [f"{key}={value}"]),
        ):
            try:
                attempt()
            except UsageError as error:
                assert "\n" not in error.message, key


@pytest.mark.parametrize("number", ["9223372036854775808", "9" * 400, "9" * 5000, "0x" + "f" * 5000])
def test_integers_have_64_bits(number: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f"[train]\nbatch = {number}\n")
    with pytest.raises(UsageError) as caught:
        assemble(tmp_path / "r.toml", {}, [])
    assert "not valid TOML: " in caught.value.message and "\n" not in caught.value.message
    for value in (number, f"'{number}'"):
        with pytest.raises(UsageError, match=r"an integer of more than 64 bits|train\.batch: ") as caught:
            assemble(None, {}, [f"batch={value}"])
        assert caught.value.hint and "\n" not in caught.value.message and len(caught.value.message) < 300
    assert assemble(None, {}, ["batch=9223372036854775807"]).train.batch == 2**63 - 1


def test_a_value_of_set_is_one_value() -> None:
    with pytest.raises(UsageError, match=r"train\.lr: Input should be a valid number"):
        assemble(None, {}, ["lr=1e-4\nseed=3"])


def test_the_hint_explains_the_key_that_a_list_or_a_choice_stands_in() -> None:
    for setting, hint in (("tasks=[1]", "tasks: Tasks in training order"), ("target_modules=[[]]", "lora.target_mod")):
        with pytest.raises(UsageError) as caught:
            assemble(None, {}, [setting])
        assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize("key", ["train.lr", "train.grad_norm", "train.epochs", "sampler.temperature"])
def test_numbers_are_finite(key: str) -> None:
    for value in ("inf", "nan", "1e400"):
        with pytest.raises(UsageError, match="finite number"):
            assemble(None, {}, [f"{key}={value}"])


def test_a_refused_value_is_explained_by_the_keys_description() -> None:
    with pytest.raises(UsageError) as caught:
        assemble(None, {}, ["grad_norm=0"])
    assert caught.value.hint == "train.grad_norm: Clip the gradient to this norm."


def test_every_key_has_a_description() -> None:
    lines = descriptions()
    assert not [key for key, line in lines.items() if not line.endswith((".", "…")) or not line[0].isalpha()]
    assert not [key for key, line in lines.items() if len(line) > 120]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', '{"tasks": 3}', '{"train": {"lr": NaN}}'])
def test_a_damaged_recipe_of_a_run_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        Recipe.load(tmp_path / "recipe.json")
    assert "recipe.json" in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("method = 3", "method must be text, not 3"),
        ("model = []", "model must be text, not []"),
        ("\ufeffmodel = []", "model must be text, not []"),
        ("grid.method = [[]]", "holds a [grid], which describes many runs"),
        ("methods = 3", "'methods' must hold a table per method"),
        ("methods.sft = 3", "'methods' must hold a table per method"),
        ("[methods.sft]\nmethod = 'sdft'", "[methods.sft]: 'method' is not one method's"),
        ("engine.name = 'vlm'", "unknown engine 'vlm'"),
        ("suite = 'nano'", "unknown suite 'nano'"),
        ("[grid]\nlr = [1]", "holds a [grid], which describes many runs"),
    ],
)
def test_malformed_files_are_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        assemble(tmp_path / "r.toml", {}, [])
    assert says in caught.value.message
