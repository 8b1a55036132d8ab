"""``--gpus`` starts the same command in several processes, and ends as they do."""

import sys

import pytest
import torch
import typer

from sdft_cli.cli import ranks
from sdft_cli.distributed import launch
from sdft_cli.distributed.launch import code_of
from sdft_cli.errors import UsageError


def test_gpus_starts_the_same_command_in_so_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(launch, "launch", lambda count, words: asked.append((count, list(words))) or 3)
    monkeypatch.setattr(sys, "argv", ["sdft", "train", "r.toml", "--gpus", "4"])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(typer.Exit) as ended:
        ranks.relaunch(4)
    assert ended.value.exit_code == 3 and asked == [(4, ["train", "r.toml", "--gpus", "4"])]


def test_one_gpu_and_a_process_that_was_started_so_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks.relaunch(None), ranks.relaunch(1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    ranks.relaunch(4), ranks.relaunch(None)
    with pytest.raises(UsageError, match="--gpus 2: a launcher has started 4 processes"):
        ranks.relaunch(2)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="--gpus 3: this machine shows 2"):
        launch.launch(3, ["train"])


def test_codes_are_those_of_a_shell() -> None:
    assert [code_of(2), code_of(-9)] == [2, 137]
