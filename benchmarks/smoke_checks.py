"""Is it right on this device? Losses, layouts, log-probs, teachers, lack of memory and optimizer against exact figures.

    python benchmarks/smoke_checks.py FILE [--device cuda] [--only NAME ...]

`smoke` starts it beside its jobs, in several processes. Every result is a line of JSON in FILE, written at once, so
that whoever stops this has all that was found until then: what, value, limit, ok; a check that raises is a result too.
References are computed in fp64 on the CPU from the same numbers; an error is the norm of a difference as a share of the
norm.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from smoke_memory import memory_checks
from smoke_state import optimizer_checks, teacher_checks
from torch import Tensor
from workload import MICRO, Case, build, config, tokenizer

N, H, V = 300, 256, 2003  # loss positions (no multiple of a chunk), width, vocabulary
DTYPES = ("float32", "bfloat16")
SHAPE = Case("qwen2", hidden=256, inner=512, layers=4, heads=8, kv=2, vocab=2048, tied=True)


class Result(NamedTuple):
    """A check's figure and what it may be at most."""

    what: str
    value: float
    limit: float


def error(ours: Tensor, exact: Tensor) -> float:
    """The norm of the difference as a share of the norm, in fp64 on the CPU."""
    ours, exact = ours.detach().double().cpu(), exact.detach().double().cpu()
    return float((ours - exact).norm() / exact.norm().clamp(min=1e-30))


# the fused loss ---------------------------------------------------------------------------------------------


def fused_checks(device: str, _: Path) -> Iterator[Result]:
    """Loss and gradients of every divergence and option; the worst of the two."""
    from sdft_cli.losses.divergence import Divergence

    goals: dict[str, Divergence | None] = {"nll": None}
    for kind in ("forward_kl", "reverse_kl", "jsd"):
        goals |= {kind: Divergence(kind), f"{kind} T=0.7": Divergence(kind, temperature=0.7)}
        goals[f"{kind} top 20 bucket"] = Divergence(kind, top_k=20)
        goals[f"{kind} teacher's top 20 renormalised"] = Divergence(
            kind, top_k=20, support="teacher", tail="renormalise"
        )
        goals[f"{kind} entry clip"] = Divergence(kind, entry_clip=0.01)
        goals[f"{kind} token clip"] = Divergence(kind, token_clip=50.0)
    goals["jsd beta 0.1"] = Divergence("jsd", beta=0.1)
    for dtype, limit in (("float32", 1e-4), ("bfloat16", 2e-2)):
        for name, goal in goals.items():
            wide = 10 if dtype == "bfloat16" and goal is not None and not goal.plain else 1  # other entries are chosen
            yield Result(f"loss {dtype} {name}", _fused(device, dtype, goal), limit * wide)
        yield Result(f"loss {dtype} head: bias, scale, cap", _fused(device, dtype, goals["forward_kl"], True), limit)
        yield Result(f"loss {dtype} nll, head, T=0.7", _fused(device, dtype, None, True), limit)


def _fused(device: str, dtype: str, goal: Any, form: bool = False) -> float:
    from sdft_cli.losses.divergence import divergence
    from sdft_cli.losses.fused import Head, Labels, Scored, fused_loss

    torch.manual_seed(0)
    tensors = [torch.randn(N, H), torch.randn(N, H), *(torch.randn(V, H) / H**0.5 * 1.5 for _ in range(2))]
    tensors += [torch.randn(V) for _ in range(2)]
    rounded = [x.to(getattr(torch, dtype)) for x in tensors]
    tokens_N, weights_N = torch.randint(0, V, (N,)), torch.rand(N) / N
    nll_N, factor_N = torch.rand(N) / N, torch.randn(N)
    scale, cap = (0.8, 20.0) if form else (1.0, None)
    temperature = goal.temperature if goal else (0.7 if form else 1.0)

    def leaves(cast: Callable[[Tensor], Tensor]) -> list[Tensor]:
        made = [cast(x).detach().clone() for x in rounded]
        return [x.requires_grad_(i in (0, 2, 4)) for i, x in enumerate(made)]

    exact, logits = leaves(lambda x: x.double()), []
    for i in (0, 1):
        plain_NV = (exact[i] @ exact[i + 2].T + (exact[i + 4] if form else 0)) * scale
        logits.append(cap * torch.tanh(plain_NV / cap) if cap else plain_NV)
    token_N = -torch.log_softmax(logits[0] / temperature, -1).gather(1, tokens_N[:, None])[:, 0]
    if goal is not None and goal.token_clip:
        unclipped_N = divergence(logits[0], logits[1], replace(goal, token_clip=None)).detach()
        goal = replace(goal, token_clip=_between(unclipped_N))
    value_N = token_N if goal is None else divergence(logits[0], logits[1].detach(), goal)
    reference = (weights_N * factor_N * value_N).sum() + (nll_N * token_N).sum()
    reference.backward()
    ours = leaves(lambda x: x.to(device))
    heads = [Head(ours[i], ours[i + 2] if form else None, scale, cap) for i in (2, 3)]
    labels = Labels(*(x.to(device) for x in (tokens_N, weights_N, nll_N)))
    teacher = Scored(ours[1], heads[1].detach()) if goal else None
    factor = factor_N.to(device)
    loss, _ = fused_loss(
        Scored(ours[0], heads[0]), labels, teacher, goal, lambda chunk: (factor[chunk.part], None), temperature
    )
    loss.backward()
    pairs = [(loss, reference), *((ours[i].grad, exact[i].grad) for i in ((0, 2, 4) if form else (0, 2)))]
    return max(error(a, b) for a, b in pairs)


def _between(values_N: Tensor) -> float:
    """A number in the middle half of ``values_N``, as far from any of them as possible: rounding moves none past it."""
    sorted_N = values_N.sort().values[len(values_N) // 4 : -len(values_N) // 4]
    at = int(sorted_N.diff().argmax())
    return float(sorted_N[at] + sorted_N[at + 1]) / 2


# models ------------------------------------------------------------------------------------------------------


def model_checks(device: str, place: Path) -> Iterator[Result]:
    """Layouts and sampled log-probs of the embedded model and of two random ones, in both precisions."""
    from sdft_cli.config.recipe import Runtime
    from sdft_cli.models import pretrained

    build(SHAPE, place / "qwen2")
    _build_llama(place / "llama")
    for name, folder in (("micro", MICRO), ("llama", place / "llama"), ("qwen2", place / "qwen2")):
        for dtype in DTYPES:
            policy = pretrained.load(str(folder), Runtime(device=device, dtype=dtype))
            print(f"{name} {dtype}: {policy.scoring.text}", flush=True)
            label = f"{name} {dtype}"
            yield Result(f"{label}: rows are not packed", float(not policy.layout.packed), 0)
            yield from _layouts(label, policy, dtype)
            yield from _sampled(label, policy, dtype)


def _build_llama(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    like = config(SHAPE, tokenizer()).to_dict()
    names = (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
        *("vocab_size", "max_position_embeddings", "initializer_range", "eos_token_id", "pad_token_id"),
    )
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(LlamaConfig(**{name: like[name] for name in names})).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def make_rows(count: int = 12) -> list[Any]:
    """Rows of random tokens, of different lengths."""
    from sdft_cli.models.batching import Row

    draw = torch.Generator().manual_seed(2)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (1,), generator=draw))
        return torch.randint(3, 900, (length,), generator=draw).tolist()

    made = [(ids(4, 90), ids(1, 50)) for _ in range(count)]
    return [Row(prompt, completion, [1.0] * len(completion)) for prompt, completion in made]


def _layouts(label: str, policy: Any, dtype: str) -> Iterator[Result]:
    rows = make_rows()
    hidden, grads, logprobs = {}, {}, {}
    for layout in ("packed", "padded", "alone"):
        if layout != "packed" or policy.layout.packed:
            hidden[layout], logprobs[layout], grads[layout] = _pass(policy, rows, layout)
    exact_logprob_N, exact_grad = _exact(policy, rows)
    wide = dtype == "float32"
    for layout, hidden_NH in hidden.items():
        if layout != "alone":
            yield Result(
                f"{label}: hidden states, {layout} = alone", error(hidden_NH, hidden["alone"]), 1e-4 if wide else 2e-2
            )
        gap_N = (logprobs[layout].double().cpu() - exact_logprob_N).abs()
        yield Result(f"{label}: log-probs {layout}, mean nats", float(gap_N.mean()), 1e-4 if wide else 0.1)
        yield Result(f"{label}: log-probs {layout}, largest", float(gap_N.max()), 1e-3 if wide else 1.0)
        yield Result(f"{label}: gradients {layout}", error(grads[layout], exact_grad), 1e-4 if wide else 5e-2)


def _pass(policy: Any, rows: list[Any], layout: str) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [N, H] and log-probs [N], and the gradient of their mean, end to end."""
    from sdft_cli.losses.fused import Labels, Scored, fused_loss
    from sdft_cli.models.batching import collate, targets

    policy.model.zero_grad(set_to_none=True)
    groups = [[row] for row in rows] if layout == "alone" else [rows]
    count, hidden, logprobs = sum(len(row.completion) for row in rows), [], []
    for group in groups:
        prompts, wanted = [row.student_prompt for row in group], targets(group, policy.device)
        hidden_NH = policy.hidden_states(collate(prompts, group, policy.chat.pad_id, policy.device, layout == "packed"))
        labels = Labels(wanted.tokens_N, wanted.weights_N / count)
        loss, stats = fused_loss(Scored(hidden_NH, policy.head()), labels)
        loss.backward()
        hidden.append(hidden_NH.detach())
        logprobs.append(stats.logprob_N)
    grad = torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])
    policy.model.zero_grad(set_to_none=True)
    return torch.cat(hidden), torch.cat(logprobs), grad


def _exact(policy: Any, rows: list[Any]) -> tuple[Tensor, Tensor]:
    """Log-probs and gradient by the model's own forward pass over every row alone, in fp64 on the CPU."""
    model = copy.deepcopy(policy.core).to("cpu", torch.float64)
    model.set_attn_implementation("eager")
    found = []
    for row in rows:
        ids_1L = torch.tensor([row.student_prompt + row.completion])
        logprob_LV = torch.log_softmax(model(input_ids=ids_1L, use_cache=False).logits[0], -1)
        start = len(row.student_prompt)
        found.append(logprob_LV[start - 1 : -1].gather(1, ids_1L[0, start:, None])[:, 0])
    logprob_N = torch.cat(found)
    (-logprob_N.mean()).backward()
    grad = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return logprob_N.detach(), grad


def _sampled(label: str, policy: Any, dtype: str) -> Iterator[Result]:
    from sdft_cli.config.recipe import Sampler
    from sdft_cli.engines.transformers import TransformersEngine
    from sdft_cli.losses.fused import Labels, Scored, fused_loss
    from sdft_cli.models.batching import Row, collate, targets

    engine = TransformersEngine(policy)
    print(f"{label}: {engine.decoder}", flush=True)
    yield Result(f"{label}: decoder is not the fast one", float(engine.decoder != "fast layers"), 0)
    prompts = [row.student_prompt for row in make_rows(16)]
    engine.sample(prompts, Sampler(temperature=0.7, top_k=5, top_p=0.9), 12, seed=3)
    again = [engine.sample(prompts, Sampler(), 40, seed=4) for _ in range(2)]
    same = [a.ids == b.ids for a, b in zip(*again, strict=True)]
    yield Result(f"{label}: share of completions that the same seed draws otherwise", 1 - sum(same) / len(same), 0)
    rows = [Row(r.prompt_ids, r.ids, [1.0] * len(r.ids), sampled=r.logprobs) for r in again[0]]
    with torch.no_grad():
        inputs = collate(prompts, rows, policy.chat.pad_id, policy.device, policy.layout.packed)
        wanted = targets(rows, policy.device)
        scored = Scored(policy.hidden_states(inputs), policy.head())
        _, stats = fused_loss(scored, Labels(wanted.tokens_N, wanted.weights_N))
    gap_N = (stats.logprob_N - wanted.sampled_N).abs()
    wide = dtype == "float32"
    yield Result(f"{label}: sampled and scored log-probs, mean nats", float(gap_N.mean()), 1e-4 if wide else 3e-2)
    yield Result(f"{label}: sampled and scored log-probs, largest", float(gap_N.max()), 1e-3 if wide else 0.5)


def settings_checks(device: str, _: Path) -> Iterator[Result]:
    """TF32 would make fp32 a format of 10 bits; and what this is."""
    on_gpu = device.startswith("cuda")
    name = torch.cuda.get_device_name() if on_gpu else "cpu"
    print(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)
    yield Result("TF32 is on in fp32 products", float(torch.backends.cuda.matmul.allow_tf32), 0)
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    yield Result("fp32 product", error(a.to(device) @ b.to(device), a.double() @ b.double()), 1e-5)


# the whole ---------------------------------------------------------------------------------------------------

CHECKS: dict[str, Callable[[str, Path], Iterator[Any]]] = {
    "settings": settings_checks,
    "fused": fused_checks,
    "models": model_checks,
    "optimizer": optimizer_checks,
    "teacher": teacher_checks,
    "memory": memory_checks,
}


def run(names: list[str], device: str, file: Path, place: Path) -> None:
    """The checks of these ``names`` in turn, results and crashes into ``file``."""
    for name in names:
        check = CHECKS[name]
        began = time.perf_counter()
        try:
            for result in check(device, place):
                what, value, limit = result
                _write(file, what=what, value=value, limit=limit, ok=value <= limit)
        except Exception as problem:
            traceback.print_exc()
            frames = [f for f in traceback.extract_tb(problem.__traceback__) if "sdft_cli" in f.filename]
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else ""
            lines = str(problem).strip().splitlines() or [""]
            _write(
                file, what=f"{check.__name__} CRASHED: {type(problem).__name__}: {lines[0][:200]} ({where})", ok=False
            )
        if device.startswith("cuda"):
            with contextlib.suppress(Exception):  # what a kernel's crash leaves is of no use any more
                torch.cuda.synchronize()
        print(f"{check.__name__}: {time.perf_counter() - began:.1f} s", flush=True)


def _write(file: Path, **facts: Any) -> None:
    with file.open("a") as stream:
        stream.write(json.dumps(facts) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS))
    given = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as place:
        run(given.only, given.device, given.file, Path(place))
    return 0


if __name__ == "__main__":
    sys.exit(main())
