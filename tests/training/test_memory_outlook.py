"""Whether a run fits: what training chooses of itself, what is only warned about, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

from sdft_cli.config.recipe import Recipe, Teacher, Train
from sdft_cli.errors import UsageError
from sdft_cli.training import available_memory, memory_model
from sdft_cli.training.memory_model import Counts, Dims
from sdft_cli.training.memory_outlook import Model, check_memory, outlook

#: A 7B model in bf16 on a GPU of which it takes much: weights 15.2, masters 30.4, moments 60.8, gradients 15.2 GB.
SEVEN = Model(
    Dims(28, 3584, 18944, 3584, 512, 28, 152_064),
    Counts(7_600_000_000, 7_600_000_000, 545_000_000),
    2,
    torch.device("cuda"),
    recomputes=True,
)
LENGTHS = [(300, 500), (200, 900)]
GB = 10**9


def free(monkeypatch: pytest.MonkeyPatch, gigabytes: float | None, swap: float = 0.0) -> None:
    left = None if gigabytes is None else int(gigabytes * GB)
    monkeypatch.setattr(available_memory, "free_bytes", lambda _: left)
    monkeypatch.setattr(available_memory, "free_swap", lambda: int(swap * GB))


def recipe(**train: object) -> Recipe:
    return Recipe(train=Train(**train), teacher=Teacher())


@pytest.mark.parametrize(
    ("gigabytes", "chosen", "fits"),
    [
        (None, [], True),
        (400, [], True),
        (215, ["teacher.storage"], True),
        (180, ["teacher.storage", "train.micro_batch_tokens"], True),
        (145, ["teacher.storage", "train.gradient_checkpointing", "train.micro_batch_tokens"], True),
        (130, ["teacher.storage", "train.gradient_checkpointing", "train.micro_batch_tokens"], False),
    ],
)
def test_settings_are_chosen_in_the_order_of_training(
    monkeypatch: pytest.MonkeyPatch, gigabytes: float | None, chosen: list[str], fits: bool
) -> None:
    free(monkeypatch, gigabytes)
    found = outlook(recipe(), SEVEN, LENGTHS, 512)
    assert (sorted(found.changes), found.fits) == (sorted(chosen), fits)
    assert bool(found.text) == bool(chosen)
    assert all(f"{key}={value}" in found.text for key, value in found.changes.items())
    assert ("may not fit" in found.text) != fits or not chosen
    if fits and gigabytes:
        assert found.peak <= gigabytes * GB


def test_what_the_user_chose_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 100)
    mine = recipe(micro_batch_tokens=8192, gradient_checkpointing="off")
    mine = mine.model_copy(update={"teacher": Teacher(storage="device")})
    assert outlook(mine, SEVEN, LENGTHS, 512).changes == {}
    assert outlook(recipe(), SEVEN._replace(recomputes=False), LENGTHS, 512).changes.keys() == {
        "teacher.storage",
        "train.micro_batch_tokens",
    }


def test_more_than_there_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is what `lasting` counts, with the teacher's average in the host's memory."""
    least = sum(memory_model.lasting(Recipe(teacher=Teacher(storage="cpu")), SEVEN.counts, 2)) / GB
    free(monkeypatch, least + 0.001)
    check_memory(recipe(), SEVEN)
    free(monkeypatch, least - 0.001)
    with pytest.raises(UsageError, match=r"at least 127.40 GiB on cuda \(weights 14\.16, .* are free") as refused:
        check_memory(recipe(), SEVEN)
    assert "lora.rank=16" in refused.value.hint and "train.optimizer=adamw8bit" in refused.value.hint
    adapter = SEVEN._replace(counts=Counts(7_600_000_000, 40_000_000, 600_000))
    check_memory(recipe(), adapter)


def test_swap_is_room_too_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SEVEN._replace(device=torch.device("cpu"))
    free(monkeypatch, 100, swap=100)
    check_memory(recipe(), host)
    free(monkeypatch, 100, swap=1)
    with pytest.raises(UsageError, match="in memory"):
        check_memory(recipe(), host)


def test_dry_run_and_train_agree(
    sdft, micro_data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--tasks", "micro-tooluse", "--model", str(tiny_model), "--data", str(micro_data)]
    free(monkeypatch, 1e-6)
    for command in (["train", "--dry-run"], ["train", "--out", str(tmp_path / "run")]):
        code, _, err = sdft(*command, *words)
        assert code == 2 and err.count("error:") == 1 and "training needs at least" in err and "hint: " in err
    assert not (tmp_path / "run").exists()
    least = available_memory  # room for what lasts, and for hardly any step
    model = Model.of(Recipe(model=str(tiny_model)), str(tiny_model))
    held = sum(memory_model.lasting(Recipe(teacher=Teacher()), model.counts, model.width))
    monkeypatch.setattr(least, "free_bytes", lambda _: held + 1)
    code, out, err = sdft("train", "--dry-run", *words, "--json")
    facts = json.loads(out)
    assert code == 0 and not facts["fits"] and facts["memory_free_bytes"] == held + 1
    assert any("may not fit" in note for note in facts["notes"])
