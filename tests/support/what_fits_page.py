"""``docs/what-fits.md``: what the memory model says of published shapes, written by this script and compared by tests.

PYTHONPATH=.:tests python -m support.what_fits_page
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from support import shapes

from sdft_cli.config.recipe_layers import assemble
from sdft_cli.training.memory_outlook import Lengths
from sdft_cli.training.plan_text import table_rows
from sdft_cli.training.what_fits import RANK, table

PAGE = Path(__file__).parents[2] / "docs" / "what-fits.md"
PROMPT, COMPLETION = 512, 2048

TEXT = """# What fits where

Which training fits on which GPUs, by the memory model (`sdft_cli/training/memory_model.py`). Ask it about your own
model, data and recipe, on any machine; it reads the model's `config.json` and no weights:

    sdft train RECIPE --dry-run --device-memory 80GB --gpus 4

This prints the plan for four GPUs of 80 GB (what each rank holds, the micro-batches, the bytes that it receives in a
step, and what every concession saves) and a table like those below; with `--json`, both for programs. `sdft probe`
takes the same two flags and adds the plan to its report.

## How to read the tables

SDFT with its defaults in bf16: 32 rows a step, prompts of {prompt} tokens and completions of up to {completion},
sampled by the transformers engine; `lora` is an adapter of rank {rank}, `qlora` the same with `lora.bits=4`. A cell has
the predicted peak on each GPU, with micro-batches as large as fit, so it is near the GPU's size where much is left for
them. After the figure stands what has to be conceded of the numbers:

* *half*: `teacher.storage=half`, the teacher's average as its offset from the student, in bf16;
* *8-bit*: `train.optimizer=adamw8bit`, Adam's moments in one byte each (needs the extra `memory`);
* *stochastic*: `train.master=stochastic`, no fp32 copy of bf16 weights.

Where nothing follows, the numbers stay those of the recipe: only micro-batches, the rows that are sampled together and
gradient checkpointing were adapted. `train.fit` chooses the same when a run starts on a GPU
([why in this order](design-decisions.md#precision-and-memory)). Sizes are in GB (10^9 bytes). Cards have some 5 % more
than their name says; CUDA's context and fragmentation take a part of it.

**These are predictions.** On one GPU the model has been checked with one model of 135 million parameters, where it was
right to 2 %. What it says of several has been compared with the shards that torch makes and with arithmetic, not with
a measurement. It assumes FSDP2 with full sharding, and that whatever samples holds the weights whole: beside its shards
each GPU then needs room for the whole model. Under an adapter every GPU has the whole base: more of them make a step
faster, and a model that does not fit on one does not fit on several.

{tables}
"""


def page(names: tuple[str, ...] = tuple(shapes.SHAPES)) -> str:
    """The whole page, with a table for each model."""
    tables = "\n\n".join(section(name) for name in names)
    return TEXT.format(prompt=PROMPT, completion=COMPLETION, rank=RANK, tables=tables)


def section(name: str) -> str:
    """A model's heading and table."""
    with tempfile.TemporaryDirectory() as place:
        folder = str(shapes.folder(name, Path(place)))
        recipe = assemble(None, {"tasks": ["tooluse"], "model": folder}, [])
        head, *rows = table_rows(table(recipe, folder, Lengths([(PROMPT, PROMPT)], COMPLETION)))
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([f"## {name}", "", *(f"| {' | '.join(cells)} |" for cells in lines)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
