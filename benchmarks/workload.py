"""What every side of a benchmark gets: cases, a model folder, examples and settings.

The model is a Qwen2 with random weights and the micro world's tokenizer; ids beyond the tokenizer's are ordinary tokens
without a name. Each token ends the completion with about the same, known probability: coordinate 0 of every embedding
is a constant that no layer reads or writes, and the output head's row of the end-of-sequence token reads only that
coordinate. Training at the benchmark's learning rate does not change it. Each side samples for itself, so lengths agree
in distribution and not one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

MICRO = Path(__file__).resolve().parents[1] / "sdft_cli" / "micro" / "model"
TASK = "micro-science"
LR = 1e-6  # so small that steps change nothing that is measured
EMA = 0.01
STEPS = 1000  # more than any benchmark takes


class Case(NamedTuple):
    """A model's shape, and the batch and lengths of one step. ``kv`` of 0: as many key heads as query heads.

    ``new`` is the maximum of new tokens, ``mean_share`` the mean length of completions without that limit, as a share
    of it; with the limit, 0.5 becomes about 0.43. ``prompt`` and ``demonstration`` are minimum lengths in tokens,
    ``sets`` further keys of our recipe.
    """

    name: str
    hidden: int = 192
    inner: int = 512
    layers: int = 4
    heads: int = 6
    vocab: int = 1203
    batch: int = 8
    new: int = 64
    mean_share: float = 0.5
    kv: int = 0
    tied: bool = False
    prompt: int = 0
    demonstration: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    lora: int = 0
    sets: tuple[str, ...] = ()

    @property
    def end_probability(self) -> float:
        """Of a token, that it ends the completion."""
        return 1 / (self.mean_share * self.new)


#: ``micro`` is the shape of the model that sdft ships, with the method's own batch; 256 is TRL's default length.
MAIN = {
    case.name: case
    for case in (
        Case("micro", batch=32, new=256),
        Case("27M", hidden=384, inner=1024, layers=8, heads=6, vocab=16_384, new=256),
        Case("vocab-32k", hidden=256, inner=512, heads=4, vocab=32_768, new=256),
    )
}
BASE = Case("base")  # each curve varies one thing of it
SCALING: dict[str, list[Case]] = {
    "batch": [BASE._replace(name=f"batch={n}", batch=n) for n in (4, 8, 16, 32)],
    "new": [BASE._replace(name=f"new={n}", new=n) for n in (64, 128, 256)],
    "vocab": [BASE._replace(name=f"vocab={n}", vocab=n) for n in (1203, 8192, 32_768)],
    "layers": [BASE._replace(name=f"layers={n}", hidden=h, inner=8 * h // 3, layers=n, heads=h // 32)
               for h, n in ((96, 2), (192, 4), (384, 8))],
}  # fmt: skip


# the model ----------------------------------------------------------------------------------------------------


def build(case: Case, folder: Path) -> dict[str, Any]:
    """Write the case's model as an ordinary folder; its parameters, and the end probability that was reached."""
    model, end = make(case)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return {"parameters": sum(p.numel() for p in model.parameters()), "end_probability": end}


def make(case: Case) -> tuple[Any, dict[str, float]]:
    """The case's model on its device, the same at every call, and its end probability."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    words = tokenizer()
    torch.manual_seed(0)
    with torch.device(case.device):
        model = AutoModelForCausalLM.from_config(config(case, words), dtype=getattr(torch, case.dtype)).eval()
        _separate(model, case.layers)
        ids_BL = torch.randint(0, words.pad_token_id, (16, 64))  # without the special tokens, which come last
    return model, set_end_probability(model, words.eos_token_id, case.end_probability, ids_BL)


def loaded(case: Case, settings: Mapping[str, Any]) -> Any:
    """The case's model as `from_pretrained` with ``settings`` would give it, with what that says of its checkpoint."""
    model = make(case)[0]
    nothing: dict[str, set[str]] = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}
    return (model, nothing) if settings.get("output_loading_info") else model


def tokenizer() -> Any:
    """The micro world's tokenizer, with its chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(MICRO))


def config(case: Case, words: Any) -> Any:
    """The case's shape as a config of transformers."""
    from transformers import Qwen2Config

    return Qwen2Config(
        hidden_size=case.hidden,
        intermediate_size=case.inner,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.kv or case.heads,
        vocab_size=max(case.vocab, len(words)),
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=case.tied,
        initializer_range=case.hidden**-0.5,
        architectures=["Qwen2ForCausalLM"],
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )


def _separate(model: Any, layers: int) -> None:
    """Scale random weights so that every layer matters at any width, and make coordinate 0 of the residual stream a
    constant that no layer reads or writes."""
    import torch

    size = model.config.hidden_size**0.5
    with torch.no_grad():
        ends = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
        for weight in ends[: 1 if model.config.tie_word_embeddings else 2]:
            weight.mul_(size)  # to a deviation of 1
            weight[:, 0] = 0.0
        ends[0][:, 0] = size / 2
        # logits get a deviation of about 1.5; random signs keep a tied head from predicting each token to repeat
        model.get_decoder().norm.weight.fill_(1.5 / size).mul_(torch.randn_like(ends[0][0]).sign())
        model.get_decoder().norm.weight[0] = 20 / size**2
        for layer in model.get_decoder().layers:
            layer.input_layernorm.weight[0] = layer.post_attention_layernorm.weight[0] = 0.0
            for out in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                out.mul_((2 * layers) ** -0.5)
                out[0] = 0.0


def set_end_probability(model: Any, eos: int, probability: float, ids_BL: Any) -> dict[str, float]:
    """Give ``eos`` about the same ``probability`` everywhere; the mean and deviation that were reached."""
    import torch

    with torch.no_grad():
        row = model.get_output_embeddings().weight[eos]
        row.zero_()
        hidden_BLH = model.get_decoder()(input_ids=ids_BL, use_cache=False).last_hidden_state
        others_BLV = model.get_output_embeddings()(hidden_BLH).float()
        others_BLV[..., eos] = -torch.inf
        wanted = math.log(probability / (1 - probability)) + others_BLV.logsumexp(-1).mean()
        for _ in range(3):  # a mean of probabilities is not the probability of a mean logit
            row[0] = (wanted / hidden_BLH[..., 0].float().mean()).to(row.dtype)
            reached_BL = model.get_output_embeddings()(hidden_BLH).float().softmax(-1)[..., eos]
            wanted += math.log(probability / reached_BL.mean())
    return {"wanted": probability, "mean": float(reached_BL.mean()), "deviation": float(reached_BL.std())}


# data and settings --------------------------------------------------------------------------------------------


def write_data(folder: Path) -> None:
    """Prepare the micro task."""
    from sdft_cli.commands.prepare import prepare
    from sdft_cli.types import PrepareOptions

    prepare([TASK], {}, folder, PrepareOptions())


def examples(case: Case, data: Path) -> list[Any]:
    """The task's training examples; for a case with longer ones, several are joined."""
    from sdft_cli.data import dataset

    rows = list(dataset.read_split(data / TASK, "train")[0])
    if not case.prompt:
        return rows
    words = tokenizer()
    questions = [e.prompt[0]["content"] for e in rows]
    demonstrations = [e.demonstration for e in rows]
    return [
        replace(e, prompt=[{"role": "user", "content": _long(words, questions, i, case.prompt)}],
                demonstration=_long(words, demonstrations, i, case.demonstration))
        for i, e in enumerate(rows)
    ]  # fmt: skip


def _long(words: Any, texts: list[str], start: int, length: int) -> str:
    """Texts from ``start`` on, joined up to at least ``length`` tokens."""
    joined, at = texts[start], start
    while len(words(joined)["input_ids"]) < length:
        at += 1
        joined += " " + texts[at % len(texts)]
    return joined


def recipe(case: Case, method: str, folder: Path, engine: str = "transformers") -> Any:
    """Our recipe: the method as shipped, with the case's batch, lengths, device and precision, and one CPU thread."""
    from sdft_cli.config.recipe_layers import assemble

    budget = "auto" if case.device == "cuda" else 16384
    flags = {"method": method, "model": str(folder), "tasks": [TASK], "suite": "micro"}
    sets = [
        f"batch={case.batch}", f"micro_batch_tokens={budget}", f"sampler.max_new_tokens={case.new}",
        f"max_steps={STEPS}", f"lr={LR}", "warmup_steps=0", "schedule=constant", f"lora.rank={case.lora}",
        f"engine.name={engine}", f"runtime.device={case.device}", f"runtime.dtype={case.dtype}", "runtime.threads=1",
        *case.sets,
    ]  # fmt: skip
    return assemble(None, flags, sets)


def schedule(case: Case, ours: Any, count: int, turns: int) -> list[list[int]]:
    """The examples of our first ``turns`` steps, so that a peer can take the same."""
    from sdft_cli.training.batches import draw, seed_of

    seed = seed_of(ours.seed, 1, "data")
    return [draw(count, case.batch, turn, seed) for turn in range(turns)]
