"""``--gpus`` starts the same command in several processes, and ends as they do."""

import sys

import pytest
import typer

from sdft_cli.cli import ranks
from sdft_cli.distributed import launch
from sdft_cli.distributed.launch import code_of


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
    ranks.relaunch(4)


def test_codes_are_those_of_a_shell() -> None:
    assert [code_of(2), code_of(-9)] == [2, 137]
