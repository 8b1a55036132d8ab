"""Model folders that cannot be loaded, whatever a library says of them: one line, and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sdft_cli.config.recipe import Runtime
from sdft_cli.errors import UsageError
from sdft_cli.models import pretrained


def cut(folder: Path) -> None:
    (file,) = folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:5000])


def emptied(folder: Path) -> None:
    (file,) = folder.glob("*.safetensors")
    file.write_bytes(b"")


def quantised(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))


def resized(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))


def without_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize("broken", [cut, emptied, quantised, resized, without_config], ids=lambda b: b.__name__)
def test_a_model_that_cannot_be_loaded_is_one_line(
    broken: Callable[[Path], None], tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    broken(folder)
    with pytest.raises(UsageError, match="cannot load the model") as refused:
        pretrained.load(str(folder), Runtime())
    assert "\n" not in refused.value.message and str(folder) in refused.value.message
    assert "another model" in refused.value.hint
