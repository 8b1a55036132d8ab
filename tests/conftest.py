"""Settings that must stand before torch is imported, and small real models for every test that needs one."""

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny: a second thread only waits for the first
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Qwen2 with random weights and the micro tokenizer: an ordinary model folder."""
    from support.real_model import save_model

    from sdft_cli.micro.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("tiny-model")
    # far from uniform, so that samples, teachers and losses differ
    return save_model(folder, build_tokenizer(), max_position_embeddings=512, initializer_range=0.3)


@pytest.fixture(scope="session")
def micro_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three micro tasks, prepared."""
    from sdft_cli.commands.prepare import prepare
    from sdft_cli.types import PrepareOptions

    folder = tmp_path_factory.mktemp("data")
    prepare(["micro-tooluse", "micro-science", "micro-medical"], {}, folder, PrepareOptions())
    return folder


@pytest.fixture
def sdft(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run `sdft …` in an empty folder; (exit code, stdout, stderr). Loading weights is not expected here."""
    from sdft_cli import plugins
    from sdft_cli.cli import app
    from sdft_cli.models import pretrained

    monkeypatch.chdir(tmp_path)
    plugins.unload_all()

    def no_weights(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(pretrained, "load", no_weights)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sdft", *words])
        try:
            app.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
