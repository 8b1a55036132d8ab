"""What becomes of a family of models, from its folder to a checkpoint: loaded, scored, trained, saved, loaded again."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from support import architectures

from sdft_cli import plugins
from sdft_cli.config.recipe import Runtime
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.data import dataset
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.errors import UsageError
from sdft_cli.models import pretrained
from sdft_cli.models.batching import PADDED, Layout, Row, collate, group_rows, targets
from sdft_cli.models.policy import Policy
from sdft_cli.training.batches import Batches
from sdft_cli.training.trainer import build_trainer

#: Families of every kind, quick enough for the default run; all others are checked by `make slow`.
DOZEN = (
    "llama",
    "llama, dynamic rope",  # frequencies of the longest row's length
    "phi3, longrope",  # frequencies that change beyond a length
    "gemma2, strong caps",  # soft caps on attention and logits, sliding windows
    "gpt2",  # learned positions
    "opt, projected embeddings",  # a projection between decoder and head; dropout in layers
    "falcon, alibi",  # attention biases that one attention adds otherwise than another
    "mixtral, router noise",  # experts, and noise while training
    "qwen3_5",  # linear attention beside full; a tower for images
    "mamba2",  # recurrent layers alone
    "deepseek_v3",  # latent attention
    "gpt_oss",  # attention sinks
    "roberta",  # a head of several layers; positions that go by the padding's id
)
#: Log-probs may differ by this much, in nats; recurrent layers that amplify rounding come nearest.
ALLOWED = 1e-3


class Outcome(NamedTuple):
    """A row of ``docs/architectures.md``: a model's class, and how it is scored and sampled; or why it is refused."""

    name: str
    model: str = ""
    rows: str = ""
    attention: str = ""
    sampled: str = ""
    refused: str = ""


def rows(seed: int = 5) -> list[Row]:
    """Rows of very different lengths, shorter and longer than all windows and limits, some tokens of weight 0."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for length in (5, 41, 14, 23, 41, 60, 9):
        ids = torch.randint(3, 1190, (length,), generator=draw).tolist()
        prompt = max(1, length // 3)
        weights = [0.0 if t % 4 == 1 else 0.1 + 0.01 * t for t in range(length - prompt)]
        made.append(Row(ids[:prompt], ids[prompt:], weights))
    return made


def expected(model: Any, row: Row) -> torch.Tensor:
    """Log-probs of the loss positions by a plain forward pass of the row alone, and nothing of ours."""
    ids, prompt = row.student_prompt + row.completion, len(row.student_prompt)
    with torch.no_grad():
        model(input_ids=torch.tensor([ids[:1]]), use_cache=False)  # a dynamic rope forgets the row before
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    logprobs = logits.log_softmax(-1)[prompt - 1 : -1].gather(1, torch.tensor(row.completion)[:, None])[:, 0]
    return logprobs[torch.tensor(row.weights) > 0]


def scored(policy: Policy, each: list[Row], layout: Layout) -> list[torch.Tensor]:
    """The same by the policy, in the order of ``each``, grouped as in training."""
    found = {}
    for group in group_rows(each, 150, layout):
        prompts = [r.student_prompt for r in group]
        inputs = collate(prompts, group, policy.chat.pad_id, policy.device, layout.packed)
        tokens_N1 = targets(group, policy.device).tokens_N[:, None]
        logprob_NV = policy.head().logits(policy.hidden_states(inputs)).log_softmax(-1)
        parts = logprob_NV.gather(1, tokens_N1)[:, 0].split([sum(w > 0 for w in r.weights) for r in group])
        found.update(zip(map(id, group), parts, strict=True))
    return [found[id(row)] for row in each]


@torch.no_grad()
def gap(policy: Policy, want: list[torch.Tensor], layout: Layout) -> float:
    """The largest difference from ``want`` in nats."""
    return max(float((a - b).abs().max()) for a, b in zip(scored(policy, rows(), layout), want, strict=True))


def check(name: str, folder: Path, tokenizer: Path, data: Path) -> Outcome:
    """Everything that is asked of a family; fails with an `AssertionError` where it is neither right nor refused."""
    architectures.save(name, folder / "model", tokenizer)
    try:
        policy = pretrained.load(str(folder / "model"), Runtime())
        ladder = TransformersEngine(policy).ladder
    except UsageError as error:
        assert error.hint and "\n" not in error.message
        reason = error.message.removeprefix(f"{folder / 'model'}: ")
        return Outcome(name, refused=re.sub(r" \(.*", "", reason))  # how far it is off depends on the processor
    check_scores(name, policy)
    check_gradients(policy)
    check_training(folder, data)
    layout, scoring = policy.layout, policy.scoring
    beyond = "" if layout.limit is None else f"; beyond {layout.limit} tokens "
    return Outcome(
        name,
        scoring.model,
        layout.kind + (f"{beyond}row by row" if beyond else ""),
        scoring.attention,
        ladder.rung.name + (f"{beyond}{ladder.beyond.name}" if beyond else ""),
    )


def check_scores(name: str, policy: Policy) -> None:
    """Alone, and laid out as in training, rows are scored as a plain forward pass of each alone does."""
    plain = architectures.build(name, "eager")
    want = [expected(plain, row) for row in rows()]
    layout = policy.layout
    assert gap(policy, want, layout) < ALLOWED, "as in training"
    assert gap(policy, want, Layout("row by row")) < ALLOWED, "alone"
    if layout.kind != "row by row":
        assert gap(policy, want, Layout("padded", layout.limit)) < ALLOWED, "padded"


def check_gradients(policy: Policy) -> None:
    """Equal with and without recomputed activations, whatever the layers do in training."""
    found = []
    for recompute in (False, True) if policy.core.supports_gradient_checkpointing else (False, False):
        policy.gradient_checkpointing(recompute)
        policy.model.zero_grad(set_to_none=True)
        policy.train_mode(dropout=False)
        torch.cat(scored(policy, rows()[:3], policy.layout)).sum().backward()
        policy.model.eval()
        found.append({n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None})
    policy.gradient_checkpointing(False)
    policy.model.zero_grad(set_to_none=True)
    assert found[0].keys() == found[1].keys() and found[0]
    for key, want in found[0].items():
        torch.testing.assert_close(found[1][key], want, atol=1e-3 * float(want.abs().max()) + 1e-7, rtol=1e-3, msg=key)


def check_training(folder: Path, data: Path) -> None:
    """Two steps on the student's own samples; saved, and loaded again, the model scores as it did."""
    sets = ["batch=2", "max_steps=2", "lr=1e-3", "warmup_steps=0", "sampler.max_new_tokens=6"]
    flags = {"method": "sdft", "model": str(folder / "model"), "tasks": ["micro-tooluse"]}
    recipe = assemble(None, flags, sets)
    policy = pretrained.load(str(folder / "model"), recipe.runtime)
    before = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    examples = [replace(e, demonstration="yes .") for e in dataset.read_split(data / "micro-tooluse", "train")[0][:4]]
    batches = Batches(policy.chat, recipe, plugins.TASKS.get("micro-tooluse"), examples, (1,), 6)
    trainer = build_trainer(policy, TransformersEngine(policy), batches)
    for step in (0, 1):
        facts = trainer.step(step)
        assert abs(facts["loss"]) < float("inf") and facts["grad_norm"] > 0
        # beyond the limit a row's positions change while it is sampled, and no scoring of the whole row can be the same
        assert policy.layout.limit or (facts["logprob_gap"] or 0.0) < ALLOWED
    assert any(not torch.equal(p, before[n]) for n, p in policy.model.named_parameters())
    frozen = [n for n, p in policy.model.named_parameters() if not p.requires_grad]
    trainer.save_model(folder / "saved")
    again = pretrained.load(str(folder / "saved"), Runtime())
    assert not [n for n, p in again.model.named_parameters() if n in frozen and not torch.equal(p, before[n])]
    assert again.scoring == policy.scoring and set(dict(again.model.named_parameters())) == set(before)
    with torch.no_grad():
        for ours, theirs in zip(*(scored(p, rows()[:4], PADDED) for p in (again, policy)), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
