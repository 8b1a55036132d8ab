"""An old key, flag value or factor name is an error that names the new one, wherever it is written."""

from pathlib import Path

import pytest

from sdft_cli.config import renamed_keys
from sdft_cli.config.recipe import Recipe, paths
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.config.sweep_grid import SweepArguments, grids_of
from sdft_cli.errors import UsageError
from sdft_cli.methods.rlsd import FACTOR, CreditSettings

#: old key, the key of today that must be named: the whole table, short keys, and keys within a renamed table
CASES = [
    *renamed_keys.KEYS.items(),
    ("probe_every", "train.eval_every"),
    ("ahead", "engine.prefetch"),
    ("evidence_share", "objective.factor_settings.reward_credit.share"),
    ("second_phase.objective.evidence_clip", "second_phase.objective.factor_settings.reward_credit.clip"),
    ("then.train.lr", "second_phase.train.lr"),
    ("then.teacher.update_rate", "second_phase.teacher.update_rate"),
]


def refused(old: str, new: str, *, file: Path | None = None, sets: list[str] | None = None) -> None:
    with pytest.raises(UsageError) as caught:
        assemble(file, {}, sets or [], point={})
    assert f"{old!r} is now called {new!r}" in caught.value.message and new in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("old", "new"), CASES)
def test_old_keys_of_set_and_grid(old: str, new: str) -> None:
    refused(old, new, sets=[f"{old}=1"])
    with pytest.raises(UsageError, match="is now called"):
        grids_of(SweepArguments(None, {}, [], [], [f"{old}=1,2"], [0], False))


@pytest.mark.parametrize(("old", "new"), [case for case in CASES if "." in case[0] or case[0] == "then"])
def test_old_keys_of_a_file(old: str, new: str, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    value = "{}" if old == "then" else "1"
    file.write_text(f"{old} = {value}\n")
    top = ("then", "second_phase") if old.startswith("then") else (old, new)
    refused(*top, file=file)
    file.write_text(f"[methods.sft]\n{old} = {value}\n")
    refused(*top, file=file)
    file.write_text(f"[grid]\n{old} = [1]\n")
    with pytest.raises(UsageError, match="is now called"):
        grids_of(SweepArguments(str(file), {}, [], [], [], [0], False))


def test_old_keys_of_a_saved_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"tasks": ["a"], "train": {"probe_every": 5}}')
    with pytest.raises(UsageError, match=r"'train\.probe_every' is now called 'train\.eval_every'"):
        Recipe.load(tmp_path / "recipe.json")


@pytest.mark.parametrize(("old", "new"), renamed_keys.FACTORS.items())
def test_old_factors(old: str, new: str, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    for text in (
        f'objective.factors = ["group_advantage", "{old}"]',
        f'[methods.sdpo.objective]\nfactors = ["{old}"]',
        f'[second_phase.objective]\nfactors = ["{old}"]',
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=f"factor '{old}' is now called '{new}'"):
            assemble(file, {}, [])
    with pytest.raises(UsageError, match=f"factor '{old}' is now called '{new}'"):
        assemble(None, {}, [f"factors=['{old}']"])


def test_the_table_renames_old_keys_to_those_of_today() -> None:
    settings = {f"objective.factor_settings.reward_credit.{key}" for key in CreditSettings.model_fields}
    assert not set(renamed_keys.KEYS) & set(paths()) and set(renamed_keys.KEYS.values()) <= {*paths(), *settings}
    assert FACTOR.name in renamed_keys.FACTORS.values()
    for key in ("train.lr", "lr", "second_phase.train.lr", "nothing"):
        assert renamed_keys.new_path(key) is None
