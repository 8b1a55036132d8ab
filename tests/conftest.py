"""Settings that must stand before torch is imported, and small real models for every test that needs one."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Qwen2 with random weights and the micro tokenizer: an ordinary model folder."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from sdft_cli.micro.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("tiny-model")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        initializer_range=0.3,  # far from uniform, so that samples, teachers and losses differ
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def micro_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three micro tasks, prepared."""
    from sdft_cli.prepare import prepare
    from sdft_cli.types import PrepareOptions

    folder = tmp_path_factory.mktemp("data")
    prepare(["micro-tooluse", "micro-science", "micro-medical"], {}, folder, PrepareOptions())
    return folder
