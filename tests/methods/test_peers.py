"""SDFT and GRPO against TRL's own trainers: loss and every parameter's gradient.

Both sides get the same model, prompts and completions. TRL builds everything else by its own methods: prompt ids, the
teacher's prompt, padding, log-probs at sampling time, advantages. Then the student is moved by noise, on both sides
alike, so that student, teacher and sampler are three models, as in the second update of a batch; the loss is taken.

What is set so that the two agree: TRL's SDFT averages over a sequence, then over sequences (our ``sequence_mean``),
its GRPO with ``dapo`` over all tokens (``token_mean``); its alpha is our kind of divergence, and between 0 and 1 our
``beta``; its temperature divides the logits of the loss too (``logits_temperature``); its GRPO has 1e-4 in the
denominator of an advantage (``reward.epsilon``). TRL has old log-probs, hence an importance ratio, only where a batch
is used more than once (``num_iterations``); we always have the sampler's.
One definition differs: see `test_trl_counts_a_row_without_loss_tokens`.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sdft_cli.models.batching import Row
from sdft_cli.models.views import PAPER, demonstration_text
from sdft_cli.training.trainer import PhaseTrainer
from sdft_cli.types import Example

pytest.importorskip("trl", minversion="1.16", reason="TRL is the peer to compare with: pip install -e '.[dev]'")
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # its SDFT and its rollout_func are experimental, as it would warn

from datasets import Dataset
from support.trainers import chance, make
from transformers import AutoTokenizer, GenerationConfig
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.sdft import SDFTConfig, SDFTTrainer

TEMPLATE = PAPER.replace("{question}", "{prompt}").replace("{demonstration}", "{privileged_context}")


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with every sixth token an end of text, so that completions differ in length."""
    folder = tmp_path_factory.mktemp("peers") / "model"
    shutil.copytree(tiny_model, folder)
    config = GenerationConfig.from_pretrained(folder)
    config.eos_token_id = [config.eos_token_id, *range(10, len(AutoTokenizer.from_pretrained(folder)), 6)]
    config.save_pretrained(folder)
    return folder


class Peer(SDFTTrainer):
    """TRL's SDFT on completions that are given to it; all else is its own."""

    def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        return prompt_ids, self.completions


def settings(folder: Path, rows: int) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "per_device_train_batch_size": rows,
    }


def examples(stage: PhaseTrainer, rows: list[Row]) -> list[Example]:
    """The example behind every row, found by its prompt."""
    known = {tuple(stage.policy.chat.prompt_ids(e.prompt)): e for e in stage.batches.examples}
    return [known[tuple(row.student_prompt)] for row in rows]


def trl_sdft(
    model: Path, folder: Path, stage: PhaseTrainer, rows: list[Row], **more: Any
) -> tuple[Any, dict[str, Any]]:
    """TRL's trainer and its batch of ``rows``; the teacher's prompts and the student's are TRL's own tokenization."""
    found = examples(stage, rows)
    batch = [{"prompt": e.prompt, "privileged_context": demonstration_text(e)} for e in found]
    more = {"teacher_prompt_template": TEMPLATE, "teacher_model_kind": "base", "num_iterations": 2, **more}
    args = SDFTConfig(**settings(folder, len(rows)), **more)
    trainer = Peer(str(model), args, Dataset.from_list(batch))
    trainer.completions = [row.completion for row in rows]
    return in_training(trainer), trainer._prepare_inputs(batch)


def trl_grpo(
    model: Path, folder: Path, stage: PhaseTrainer, rows: list[Row], **more: Any
) -> tuple[Any, dict[str, Any]]:
    """TRL's trainer and its batch of ``rows``; the advantages are TRL's own, from the same grades."""
    batch = [{"prompt": e.prompt} for e in examples(stage, rows)]
    more = {"loss_type": "dapo", "epsilon": 0.2, "epsilon_high": 0.28, "delta": 3.0, "beta": 0.0, **more}
    args = GRPOConfig(**settings(folder, len(rows)), num_generations=4, shuffle_dataset=False, **more)

    def rewards(completions: list[Any], **_: Any) -> list[float | None]:
        return [chance(messages[0]["content"], stage.batches.examples[0]).value for messages in completions]

    def rollouts(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        ids = [row.student_prompt for row in rows], [row.completion for row in rows]
        return {"prompt_ids": ids[0], "completion_ids": ids[1], "logprobs": None}

    trainer = GRPOTrainer(str(model), rewards, args, Dataset.from_list(batch), rollout_func=rollouts)
    return in_training(trainer), trainer._prepare_inputs(batch)


def in_training(trainer: Any) -> Any:
    """As Trainer.train() would have it during a step."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    return trainer


@torch.no_grad()
def move(model: nn.Module, by: float) -> None:
    """The same noise on every model of this shape."""
    generator = torch.Generator().manual_seed(1)
    for param in model.parameters():
        param.add_(by * torch.randn(param.shape, generator=generator))


def compare(stage: PhaseTrainer, rows: list[Row], trainer: Any, batch: dict[str, Any], share: float = 1.0) -> None:
    """Loss and gradients after the same move; TRL's are ``share`` of ours."""
    for model in (stage.policy.model, trainer.model):
        move(model, 0.03)
    ours, _ = stage.gradients(rows, 0)
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    assert abs(ours) > 1e-3 and ours * share == pytest.approx(theirs.item(), rel=1e-4)
    wanted = dict(trainer.model.named_parameters())
    for name, param in stage.policy.model.named_parameters():
        mine, want = param.grad, wanted[name].grad
        assert mine is not None and want is not None and want.abs().max() > 1e-6, name
        error = (mine * share - want).abs().max() / want.abs().max()
        assert error < 1e-4, f"{name}: off by {error:.1e} of the largest entry"


SDFT_CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "forward KL": ({"distillation_alpha": 0.0}, []),
    "reverse KL": ({"distillation_alpha": 1.0}, ["divergence=reverse_kl"]),
    "JSD 0.3": ({"distillation_alpha": 0.3}, ["divergence=jsd", "beta=0.3"]),
    "JSD 0.5": ({"distillation_alpha": 0.5}, ["divergence=jsd"]),
    "no importance ratio": ({"distillation_alpha": 0.0, "distillation_is_clip": None}, ["importance_cap=none"]),
    "temperature": (
        {"distillation_alpha": 0.0, "temperature": 1.3},
        ["sampler.temperature=1.3", "logits_temperature=1.3"],
    ),
    "top 5, tail in a bucket": (
        {"distillation_alpha": 0.5, "distillation_mode": "topk_logits", "distillation_topk": 5}
        | {"distillation_add_tail": True},
        ["divergence=jsd", "divergence_top_k=5"],
    ),
    "top 5, renormalised": (
        {"distillation_alpha": 0.0, "distillation_mode": "topk_logits", "distillation_topk": 5},
        ["divergence_top_k=5", "tail=renormalise"],
    ),
    "sampled tokens": (
        {"distillation_alpha": 1.0, "distillation_mode": "sampled_token"},
        ["divergence=reverse_kl", "estimator=sampled"],
    ),
}


@pytest.mark.parametrize("case", SDFT_CASES)
def test_sdft_is_trls(model: Path, micro_data: Path, tmp_path: Path, case: str) -> None:
    theirs, ours = SDFT_CASES[case]
    stage = make(model, micro_data, "sdft", "skip_first=0", *ours)
    rows, _ = stage.batch(0)
    trainer, batch = trl_sdft(model, tmp_path, stage, rows, **{"distillation_mode": "full_logits", **theirs})
    for row, ids, mask in zip(rows, batch["teacher_input_ids"], batch["teacher_attention_mask"], strict=True):
        assert ids[mask.bool()].tolist() == [*(row.teacher_prompt or []), *row.completion]
    compare(stage, rows, trainer, batch)


def test_trl_counts_a_row_without_loss_tokens(model: Path, micro_data: Path, tmp_path: Path) -> None:
    """The first tokens are left out of the loss. A completion that ends within them has nothing to say: TRL divides by
    all sequences (it counts as a loss of 0), we by those that have a token. So its loss is smaller by that share."""
    stage = make(model, micro_data, "sdft", "skip_first=3")
    rows, _ = stage.batch(0)
    more = {"distillation_mode": "full_logits", "distillation_alpha": 0.0, "num_loss_tokens_to_skip": 3}
    share = sum(any(row.weights) for row in rows) / len(rows)
    assert 0 < share < 1
    compare(stage, rows, *trl_sdft(model, tmp_path, stage, rows, **more), share)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("updates", [1, 2])
def test_grpo_is_trls(model: Path, micro_data: Path, tmp_path: Path, updates: int, masked: bool) -> None:
    """In the first update of a batch the ratio is 1; in a later one it goes beyond every bound: 0.8, 1.28, and 3."""
    sets = [f"updates={updates}", f"mask_truncated={str(masked).lower()}", "reward.epsilon=1e-4", "batch=64"]
    stage = make(model, micro_data, "grpo", *sets)
    rows, facts = stage.batch(0)
    assert 0 < facts["truncated"] < 1
    more = {"num_iterations": updates, "mask_truncated_completions": masked}
    trainer, batch = trl_grpo(model, tmp_path, stage, rows, **more)
    assert sorted(batch["advantages"].tolist()) == pytest.approx(sorted(row.advantage or 0 for row in rows))
    compare(stage, rows, trainer, batch)
    if updates > 1:
        ratio, advantage = ratios(trainer, batch)
        for outside in (ratio < 0.8) & (advantage < 0), (ratio > 1.28) & (advantage > 0), (ratio > 3) & (advantage < 0):
            assert outside.any()


def ratios(trainer: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """TRL's ratio of new to old policy and the advantage, of every token that is in the loss."""
    ids, seen = (torch.cat((batch[f"prompt_{k}"], batch[f"completion_{k}"]), 1) for k in ("ids", "mask"))
    width = batch["completion_ids"].shape[1]
    now = trainer._get_per_token_logps_and_entropies(trainer.model, ids, seen, width)[0]
    kept = batch["completion_mask"].bool()
    return (now - batch["old_per_token_logps"]).exp()[kept], batch["advantages"][:, None].expand_as(now)[kept]
