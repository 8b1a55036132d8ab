"""What the tests of vLLM's two engines share: prompts, a step, a comparison with the trainer's own sampling, a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sdft_cli.commands.train import train
from sdft_cli.config.recipe import METHODS, Recipe, Sampler, build
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.micro.tokenizer import build_tokenizer
from sdft_cli.models.policy import Policy
from sdft_cli.runs.folder import Run
from sdft_cli.training.display import TrainingDisplay

PROMPTS = ["repeat these words : vibro nidu", "which number comes after five ?", "give the last word of : saso mado"]


def prompts_for(policy: Policy) -> list[list[int]]:
    return [policy.chat.prompt_ids([{"role": "user", "content": text}]) for text in PROMPTS]


def step(policy: Policy, size: float) -> None:
    """A step like an optimizer's: every trainable weight moves by ``size``."""
    with torch.no_grad():
        for param in policy.model.parameters():
            if param.requires_grad:
                param.add_(torch.randn_like(param).sign(), alpha=size)


def agree(engine: Any, policy: Policy, longest: int = 24) -> None:
    """Greedy: the same ids and ends as by the trainer's own sampling, log-probs within 1e-3."""
    ours = engine.sample(prompts_for(policy), Sampler(), longest, 0, greedy=True)
    want = TransformersEngine(policy).sample(prompts_for(policy), Sampler(), longest, 0, greedy=True)
    for mine, other in zip(ours, want, strict=True):
        assert (mine.prompt_ids, mine.ids, mine.finish, mine.index) == (
            other.prompt_ids,
            other.ids,
            other.finish,
            other.index,
        )
        assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-3)


def tied_model(folder: Path) -> Path:
    """The tiny model with its output head tied to its embeddings."""
    from support.real_model import save_model

    shape = {"max_position_embeddings": 512, "initializer_range": 0.3, "tie_word_embeddings": True}
    return save_model(folder, build_tokenizer(), **shape)


def recipe(model: Path, data: Path, engine: dict[str, Any], **more: Any) -> Recipe:
    """Six steps of SDFT with a warm-up, at a usual rate for the model's size."""
    settings: dict[str, Any] = {
        "tasks": ["micro-science"],
        "model": str(model),
        "data": str(data),
        "sampler": {"max_new_tokens": 12},
        "train": {"lr": 1e-4, "batch": 8, "max_steps": 6, "warmup_steps": 4, "eval_every": 0, "checkpoint_every": 0},
        "evaluation": {"limit": 4, "max_new_tokens": 8},
        "engine": engine,
        "guards": {"enabled": False},
    }
    return build([METHODS.get("sdft").defaults(), settings, more])


def run(chosen: Recipe, out: Path, resume: bool = False) -> Run:
    with TrainingDisplay(quiet=True) as display:
        return train(chosen, out, display, resume)
