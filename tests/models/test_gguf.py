"""GGUF files as models: converted once, and then like any other folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from support.gguf_files import write_llama
from support.real_model import make_model

from sdft_cli.config import gguf_files
from sdft_cli.config.model_locations import absolute, locate
from sdft_cli.errors import UsageError
from sdft_cli.models.base_models import move

pytest.importorskip("gguf")
TEXTS = ["the quick brown fox", "jumps over it 123 times", "déjà vu 北京"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


def written(folder: Path, quantised: bool):
    """A GGUF file, the model that it holds, and its tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(make_model(folder / "source", TEXTS))
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    core = LlamaForCausalLM(config).eval()
    file = folder / "Tiny.Q8_0.gguf"
    core.load_state_dict(write_llama(file, core, tokenizer, quantised))
    return file, core, tokenizer


def test_a_file_is_the_model_it_holds(tmp_path: Path, cache: Path, capfd) -> None:
    from transformers import AutoModelForCausalLM

    from sdft_cli.models.pretrained import load_chat

    file, core, tokenizer = written(tmp_path, quantised=True)
    folder = locate(str(file))
    assert Path(folder).parent == cache and "converted once" in capfd.readouterr().err
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.randint(0, core.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, core(ids).logits, atol=1e-4)
    assert loaded.dtype == torch.float32 and not hasattr(loaded.config, "quantization_config")
    chat = load_chat(folder)
    assert all(chat.tokenizer.encode(text) == tokenizer.encode(text) for text in TEXTS)
    assert chat.tokenizer.chat_template == tokenizer.chat_template and chat.end_id == tokenizer.eos_token_id
    assert locate(str(file)) == folder == locate(str(file.parent / ".." / tmp_path.name / file.name))
    assert "converted" not in capfd.readouterr().err
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.move(file, alone)
    assert absolute(str(alone)) == str(alone) and not list(cache.glob(".making-*"))


def test_a_run_of_a_file_is_gone_on_with(tmp_path: Path, cache: Path) -> None:
    """As `sdft demo` and `sdft sweep` do with every run: its folder has a recipe, and the model is where it says."""
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    assert move(str(file), None, tmp_path / "run") == str(file)
    assert move(str(tmp_path), None, tmp_path / "run") == str(tmp_path)
    file.unlink()
    with pytest.raises(UsageError, match="any more"):
        move(str(file), None, tmp_path / "run")


def test_which_file_is_meant(tmp_path: Path, cache: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(UsageError) as error:
            locate(str(path))
        return error.value.message

    (tmp_path / "empty").mkdir()
    assert "neither a config.json nor a .gguf file" in refusal(tmp_path / "empty")
    two = tmp_path / "two"
    two.mkdir()
    for name in ("a.gguf", "b.gguf"):
        (two / name).write_bytes(b"GGUF")
    assert "holds 2 GGUF files" in refusal(two)
    (tmp_path / "m-00001-of-00003.gguf").write_bytes(b"GGUF")
    assert "one of several parts" in refusal(tmp_path / "m-00001-of-00003.gguf")
    assert gguf_files.find(two / "a.gguf") == two / "a.gguf" and gguf_files.find(tmp_path / "none.gguf") is None


def test_a_broken_file_is_one_line(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + b"\xff" * 40)
    with pytest.raises(UsageError) as error:
        locate(str(tmp_path / "broken.gguf"))
    assert "\n" not in error.value.message and "broken.gguf" in error.value.message
    assert not cache.exists() or not list(cache.iterdir())
