"""Pre-train the micro world's base model: ``python recipes/micro-base/pretrain.py --out DIR``.

One plain loop on purpose: this makes a file that we ship, it is not a trainer. All randomness comes from ``--seed``, so
a machine makes the same bytes twice, given the same number of threads and version of torch.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on shared cores, two spinning threads are 20x slower

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from sdft_cli.micro import rules, skills
from sdft_cli.micro.corpus import TEACHER_TEMPLATES, _pairs, conversation, rehearsal
from sdft_cli.micro.language import Question, expert, extract
from sdft_cli.micro.tokenizer import build_tokenizer

TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def build_model(args: argparse.Namespace, tokenizer) -> Qwen2ForCausalLM:
    torch.manual_seed(args.seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 32,
        num_key_value_heads=args.hidden // 32,
        max_position_embeddings=512,
        tie_word_embeddings=False,  # tied heads go stale in one vLLM build after a weight update
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    plant_look_up(model)
    return model


@torch.no_grad()
def plant_look_up(model: Qwen2ForCausalLM, heads: int = 2, strength: float = 4.0, gain: float = 1.5) -> None:
    """Initialize with the two-step circuit that finds an earlier occurrence of a word and copies what followed it (an
    induction head).

    Heads of the first layer attend one token back, by biases that their rotary embedding turns by one position. Heads
    of the second layer compare the current word with what the first layer stored, and copy the match. Without this, no
    base model of ours found the circuit in 12 M tokens; planted, it works after 0.3 M. All weights stay trainable.
    (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Olsson et al. 2022, arXiv 2209.11895.)
    """
    first, second = (layer.self_attn for layer in model.model.layers[:2])
    size, width, spread = first.head_dim, model.config.hidden_size, 0.1
    turn_F = model.model.rotary_emb.inv_freq  # radians per position, fastest first
    slow_D = (torch.cat([turn_F, turn_F]) < 0.06).float()  # dimensions that distance does not blur
    model.model.embed_tokens.weight.normal_(0, spread)
    for head in range(heads):
        rows, fast = slice(head * size, (head + 1) * size), 6
        for bias, angle_F in ((first.q_proj.bias, torch.zeros_like(turn_F)), (first.k_proj.bias, turn_F)):
            bias[rows][:fast] = strength * angle_F.cos()[:fast]
            bias[rows][size // 2 :][:fast] = strength * angle_F.sin()[:fast]
        first.q_proj.weight[rows] = first.k_proj.weight[rows] = 0
        read_DH = torch.randn(size, width) / width**0.5
        write_HD = torch.randn(width, size) * spread / size**0.5
        first.v_proj.weight[rows], first.o_proj.weight[:, rows] = read_DH, write_HD
        second.q_proj.weight[rows] = gain * slow_D[:, None] * read_DH
        second.k_proj.weight[rows] = gain * slow_D[:, None] * write_HD.T * 0.3 / spread  # 0.3: about unit variance
        copy_DH = torch.randn(size, width) / width**0.5
        second.v_proj.weight[rows], second.o_proj.weight[:, rows] = copy_DH, 3 * spread * copy_DH.T
    model.lm_head.weight.copy_(model.model.embed_tokens.weight)


class Stream:
    """Right-padded batches of conversations of similar length: ids and loss mask."""

    def __init__(self, tokenizer, seed: int, tokens: int, rehearsal_steps: int = 0):
        self.tokenizer, self.rehearsal_steps, self.taken = tokenizer, rehearsal_steps, 0
        self.rng = random.Random(f"micro-pretrain/{seed}")
        self.tokens = tokens
        self.queue: list[list[tuple[list[int], int]]] = []

    def encode(self, pairs: list[tuple[str, str]]) -> list[tuple[list[int], int]]:
        prompts = self.tokenizer([TURN.format(user) for user, _ in pairs], add_special_tokens=False)["input_ids"]
        answers = self.tokenizer([a for _, a in pairs], add_special_tokens=False)["input_ids"]
        end = self.tokenizer.eos_token_id
        return [([*p, *a, end], len(p)) for p, a in zip(prompts, answers, strict=True)]

    def draw(self) -> tuple[str, str]:
        return (rehearsal if self.taken < self.rehearsal_steps else conversation)(self.rng)

    def refill(self) -> None:
        rows = sorted(self.encode([self.draw() for _ in range(2048)]), key=lambda r: len(r[0]))
        batch: list[tuple[list[int], int]] = []
        for row in rows:
            if (len(batch) + 1) * len(row[0]) > self.tokens:
                self.queue.append(batch)
                batch = []
            batch.append(row)
        self.rng.shuffle(self.queue)

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.queue:
            self.refill()
        batch = self.queue.pop()
        self.taken += 1
        width = max(len(ids) for ids, _ in batch)
        ids_BL = torch.zeros(len(batch), width, dtype=torch.long)
        mask_BL = torch.zeros(len(batch), width, dtype=torch.bool)
        for i, (ids, start) in enumerate(batch):
            ids_BL[i, : len(ids)] = torch.tensor(ids)
            mask_BL[i, start : len(ids)] = True
        return ids_BL, mask_BL


@torch.no_grad()
def answer(model: Qwen2ForCausalLM, tokenizer, questions: list[Question], shown: bool = False) -> float:
    """Greedy accuracy on ``questions``, with or without a demonstration in the prompt."""
    rng = random.Random(5)
    prompts = []
    for q in questions:
        text = q.prompt
        if shown:
            text = TEACHER_TEMPLATES[0].format(question=q.prompt, demonstration=expert(q.answer, rng))
        prompts.append(TURN.format(text))
    right = 0
    for i in range(0, len(prompts), 256):
        enc = tokenizer(
            prompts[i : i + 256], return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        out = model.generate(**enc, max_new_tokens=24, do_sample=False)
        texts = tokenizer.batch_decode(out[:, enc["input_ids"].shape[1] :], skip_special_tokens=True)
        right += sum(extract(t) == q.answer for t, q in zip(texts, questions[i : i + 256], strict=True))
    return right / len(questions)


@torch.no_grad()
def look_up(model: Qwen2ForCausalLM, tokenizer) -> float:
    """How often the right value is the top prediction after its key in practice with pairs: have the heads formed?"""
    rng, right, count = random.Random(7), 0, 0
    stream = Stream(tokenizer, 0, 0)
    for ids, start in stream.encode([_pairs(rng) for _ in range(60)]):
        picks = model(torch.tensor([ids])).logits[0].argmax(-1)
        for t in range(start + 1, len(ids) - 1, 3):  # key value , key value , ...
            right, count = right + int(picks[t - 1] == ids[t]), count + 1
    return right / count


def evaluate(model, tokenizer, n: int) -> dict[str, float]:
    model.eval()
    rng = random.Random(99)
    scores = {name: answer(model, tokenizer, [make(rng) for _ in range(n)]) for name, make in skills.SKILLS.items()}
    scores["pairs"] = look_up(model, tokenizer)
    scores["prior"] = sum(scores[name] for name in skills.SKILLS) / len(skills.SKILLS)
    for name, make in rules.RULES.items():
        rule = rules.draw_rule(name, 0)
        qs = [make(rng, rule, rules.forms(name, test=True)) for _ in range(n)]
        scores[f"{name} shown"] = answer(model, tokenizer, qs, shown=True)
        scores[name] = answer(model, tokenizer, qs)
    model.train()
    return scores


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens per batch, padding included")
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--intermediate", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rehearsal-steps", type=int, default=400, help="steps at the start that use rehearsal() only")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=500)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = build_tokenizer()
    model = build_model(args, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=args.weight_decay)
    stream = Stream(tokenizer, args.seed, args.tokens, args.rehearsal_steps)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    began, seen, log = time.time(), 0, []
    for step in range(1, args.steps + 1):
        warm = min(1.0, step / 200)
        rate = args.lr * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids_BL, mask_BL = next(stream)
        seen += ids_BL.numel()
        hidden_BLH = model.model(ids_BL, attention_mask=None).last_hidden_state
        at_BL = mask_BL[:, 1:]
        logits_NV = model.lm_head(hidden_BLH[:, :-1][at_BL])
        loss = torch.nn.functional.cross_entropy(logits_NV, ids_BL[:, 1:][at_BL])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % args.every == 0 or step == args.steps:
            scores = {k: round(v, 3) for k, v in evaluate(model, tokenizer, 100 if step < args.steps else 400).items()}
            log.append({"step": step, "tokens": seen, "loss": round(loss.item(), 4), **scores})
            print(f"{time.time() - began:.0f}s", json.dumps(log[-1]), flush=True)
            model.save_pretrained(args.out)
            tokenizer.save_pretrained(args.out)
    (args.out / "pretraining.json").write_text(
        json.dumps({"recipe": {**vars(args), "out": None}, "log": log}, indent=1)
    )


if __name__ == "__main__":
    main()
