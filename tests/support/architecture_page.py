"""``docs/architectures.md``: what became of every family, written by this script and read back by tests.

    PYTHONPATH=.:tests python -m support.architecture_page

checks every family again (half an hour) and writes the page.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

from support import architectures
from support.families import Outcome, check

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
RIGHT = ("family", "class", "rows", "attention", "sampling")
REFUSED = ("family", "reason")
NOT_BUILT = ("family", "why")

TEXT = """# Architectures

Which families of models are trained right, and how each is computed. {families} families of causal and multimodal
language models that transformers {version} knows were built tiny with random weights, and {variants} variants of them
with other ropes, windows, soft caps, heads and attention. **{right} are right, {refused} are refused when they are
loaded, none is silently wrong.** Tests repeat this for a dozen kinds in every run and for all of them in `make slow`;
this page is written by `tests/support/architecture_page.py`, and the tests compare it with what they find.

## What right means

The reference is the model's own forward pass over one row alone, with eager attention and nothing of ours. For every
family

* the log-probs of rows from 5 to 60 tokens equal it within 0.001 nats: alone, padded beside longer rows, and laid out
  as in training. Windows, chunks and the lengths at which a rope changes are shorter than those rows;
* gradients are the same with gradient checkpointing as without, so dropout, dropped layers and the noise of routers
  are off in training;
* two SDFT steps sample, train and move the weights, and the log-probs that the sampler recorded equal the trainer's;
* the model is saved whole and, loaded again, scores as before. Towers for images and sound are kept as they were.

## How a model is computed

When a model loads, a few rows of up to 24 tokens are compared with that reference, and the fastest way that gives the
same logits is taken; the run says once which, and `metrics.jsonl` has it in a row of kind `model`.

* **Attention**: transformers' default where it gives the results of eager attention, else eager. A soft cap on
  attention scores is lost in `sdpa`, so models that have one are computed eagerly. `runtime.attention` names another
  (`flash_attention_2` knows soft caps); it is refused where its results differ.
* **Rows**: packed end to end, or padded on the right, or one at a time. Packing is for full attention; sliding windows
  and recurrent layers would see across rows. With a `dynamic` rope or `longrope`, positions depend on how long the
  longest row of a forward pass is: rows beyond the length at which they change are scored alone.
* **Hidden states**: the decoder's, or where these are not what the head reads, what the whole model gives its head.
* **Sampling**: layers walked one token at a time where that is right, else the model's own forward pass, else slower
  ways that are; see `sdft_cli/engines/_ladder.py`.

In 16 bits rounding hides smaller differences: the comparison then finds those above a tenth of the logits' size, and
the config decides what is known of a model beforehand (windows, soft caps, ropes).

A row that grows beyond its rope's limit while it is sampled was drawn with other positions than it is scored with,
since every token changes those of all before it. The gap of its log-probs is logged and watched.

## Refused

A model is refused in one line, before anything is written, where no way gives its logits (reasons below), where its
tokens attend to later ones, and where it cannot be loaded whole: parameters missing from the checkpoint, other shapes
or more layers than `config.json` says, weights that are not finite, a damaged file, a tokenizer with more ids than the
model has embeddings. Code that comes with a model is never run. Encoders, and encoders with a decoder (T5, BART), are
no causal language models; BERT and its like are where `config.json` has `is_decoder`. Weights for which transformers'
class has no place, such as layers that predict several tokens, are named when a run starts: they are left out of what
is saved.

{refusals}

## Right

{table}

## Not built

{not_built}
"""


def page(outcomes: Iterable[Outcome]) -> str:
    """The page's text."""
    import transformers

    every = sorted(outcomes, key=lambda each: each.name.lower())
    right, refused = [e for e in every if not e.refused], [e for e in every if e.refused]
    return TEXT.format(
        version=transformers.__version__,
        families=len(every) - len(architectures.VARIANTS),
        variants=len(architectures.VARIANTS),
        right=len(right),
        refused=len(refused),
        refusals=_table(REFUSED, [(e.name, e.refused) for e in refused]),
        table=_table(RIGHT, [(e.name, f"`{e.model}`", e.rows, e.attention, e.sampled) for e in right]),
        not_built=_table(NOT_BUILT, sorted(architectures.NOT_BUILT.items())),
    )


def outcomes() -> dict[str, Outcome]:
    """The page's rows by family."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").partition("## Not built")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| ") else []
        if len(cells) == len(RIGHT) and tuple(cells) != RIGHT:
            found[cells[0]] = Outcome(cells[0], cells[1].strip("`"), *cells[2:])
        elif len(cells) == len(REFUSED) and tuple(cells) != REFUSED:
            found[cells[0]] = Outcome(cells[0], refused=cells[1])
    return {name: found[name] for name in sorted(found, key=str.lower)}


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (heads, *rows)]
    return "\n".join((lines[0], "|" + "---|" * lines[0].count(" | ") + "---|", *lines[1:]))


def _check(place: Path, number: int, name: str) -> Outcome:
    return check(name, place / str(number), place / "tokenizer", place / "data")


def main() -> None:
    from support.real_model import save_model

    from sdft_cli.commands.prepare import prepare
    from sdft_cli.micro.tokenizer import build_tokenizer
    from sdft_cli.types import PrepareOptions

    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2) as pool:
        save_model(Path(folder) / "tokenizer", build_tokenizer())
        prepare(["micro-tooluse"], {}, Path(folder) / "data", PrepareOptions())
        names = architectures.names()
        found = pool.map(_check, repeat(Path(folder)), range(len(names)), names)
        PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
