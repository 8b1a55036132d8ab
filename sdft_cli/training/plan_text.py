"""What fits where, as programs read it and as people do (`what_fits`). No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

from sdft_cli.training.memory_model import Lasting

GB, MB = 10**9, 10**6
#: What concedes something of the numbers, in a word for each setting; all other concessions leave them as they are.
SHORT = {"teacher.storage=half": "half", "train.optimizer=adamw8bit": "8-bit", "train.master=stochastic": "stochastic"}
LEGEND = f"(predicted on each; {'; '.join(f'{word}: {setting}' for setting, word in SHORT.items())})"


class ShardFacts(TypedDict):
    """How the model lies on the ranks: ``parameters`` of it on each rank, of the largest ``layer``, and of the ``root``
    group that is gathered through a pass; the last two are 0 where nothing is gathered."""

    parameters: int
    layer: int
    root: int


class TrafficFacts(TypedDict):
    """Bytes that each rank receives in a step (`memory_shards.Traffic`)."""

    all_gather: int
    sampling: int
    reduce: int


class PlanFacts(TypedDict):
    """A run on ``gpus`` devices of ``device_memory_bytes`` each (None: unknown).

    Bytes are those of one rank: ``parts`` by what they hold, and the peaks of the training and the sampling half of a
    step. ``rows`` are a rank's share of a batch; ``chosen`` is what `train.fit` concedes, by key, and ``saves`` the
    bytes that every concession saves, or would save besides, by ``key=value``.
    """

    gpus: int
    device_memory_bytes: int | None
    fits: bool
    predicted_peak_bytes: int
    training_peak_bytes: int
    sampling_peak_bytes: int
    parts: dict[str, int]
    shards: ShardFacts
    traffic: TrafficFacts
    rows: int
    micro_batches: int
    micro_batch_tokens: int
    chosen: dict[str, int | str]
    saves: dict[str, int]


class Cell(TypedDict):
    """Whether a kind of training (``full``, ``lora``, ``qlora``) fits on so many devices of a size, and what has to be
    conceded."""

    training: str
    device_memory_bytes: int
    gpus: int
    fits: bool
    predicted_peak_bytes: int
    chosen: dict[str, int | str]


def plan_lines(plan: PlanFacts) -> list[str]:
    """The plan for a terminal."""
    size = "unknown memory" if plan["device_memory_bytes"] is None else _size(plan["device_memory_bytes"])
    each, verdict = " each" if plan["gpus"] > 1 else "", "fits" if plan["fits"] else "does not fit"
    peaks = f"{_size(plan['training_peak_bytes'])} in training, {_size(plan['sampling_peak_bytes'])} while sampling"
    held = [(name.replace("_", " "), plan["parts"][name]) for name in Lasting._fields]
    batches = f"{plan['micro_batches']} micro-batch{'es' * (plan['micro_batches'] > 1)}"
    return [
        f"on {plan['gpus']} x {size}: {verdict}; predicted peak {_size(plan['predicted_peak_bytes'])}{each} ({peaks})",
        f"    lasting{each}: {', '.join(f'{name} {_size(held)}' for name, held in held if held)}",
        f"    {plan['rows']} rows of a batch{each}, in {batches} of up to {plan['micro_batch_tokens']} tokens",
        *(_exchange(plan) if plan["gpus"] > 1 else []),
        *_concessions(plan),
    ]


def _exchange(plan: PlanFacts) -> list[str]:
    shards, received = plan["shards"], plan["traffic"]
    gathers = f"{_size(received['all_gather'])} of weights for passes, {_size(received['sampling'])} to sample"
    return [
        f"    shards: {shards['parameters'] / MB:.1f} M parameters on each; gathered at once: layers of up to "
        f"{shards['layer'] / MB:.1f} M, and {shards['root'] / MB:.1f} M of embeddings and output head",
        f"    received by each in a step: {gathers}, {_size(received['reduce'])} of gradients",
    ]


def _concessions(plan: PlanFacts) -> Iterator[str]:
    chosen = {f"{key}={value}" for key, value in plan["chosen"].items()}
    for setting, saves in plan["saves"].items():
        what = "chosen" if setting in chosen else "not needed"
        yield f"    {what}: {setting} ({'saves' if setting in chosen else 'would save'} {_size(saves)})"


def _size(held: int) -> str:
    return f"{held / GB:.1f} GB" if held >= GB / 2 else f"{held / MB:.0f} MB"


def table_rows(cells: Sequence[Cell]) -> list[list[str]]:
    """The kind of training and the size of a device, then a cell for each number of devices; the head comes first."""
    gpus = list(dict.fromkeys(cell["gpus"] for cell in cells))
    found: dict[tuple[str, int], list[str]] = {}
    for cell in cells:
        found.setdefault((cell["training"], cell["device_memory_bytes"]), []).append(_short(cell))
    head = ["what fits", "GPU", *(f"x {count}" for count in gpus)]
    return [head, *([name, _size(size).replace(".0 ", " "), *told] for (name, size), told in found.items())]


def table_lines(cells: Sequence[Cell]) -> list[str]:
    """The table for a terminal."""
    rows = table_rows(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    told = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*told, LEGEND]


def _short(cell: Cell) -> str:
    """``35 GB`` where the numbers stay as they are, ``35 GB: half, 8-bit`` where some are conceded, or ``no``."""
    if not cell["fits"]:
        return "no"
    conceded = [SHORT[each] for each in (f"{k}={v}" for k, v in cell["chosen"].items()) if each in SHORT]
    return f"{cell['predicted_peak_bytes'] / GB:.0f} GB{': ' + ', '.join(conceded) if conceded else ''}"
