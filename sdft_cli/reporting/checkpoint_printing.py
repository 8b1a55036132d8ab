"""What changed between two checkpoints, printed: a line per unit, what was not compared, and the items that moved."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from sdft_cli import console
from sdft_cli.reporting.checkpoint_changes import UnitChange
from sdft_cli.runs.completeness import differs

#: The most ids of each kind that are printed; --json has them all.
LISTED = 10
#: The most ids of items that were not compared.
_NAMED = 3


def show_units(units: Sequence[UnitChange], uncompared: Sequence[str]) -> None:
    """Print the changes of ``units``; ``uncompared`` has what else could not be compared, and why."""
    say = console.out.print
    heads = ("", "n", "A", "B", "B − A", "95 % interval", "+", "−", "p")
    say(console.plain_table(heads, [_cells(row) for row in units], names=1))
    say("+ and −: items gained and lost in B")
    for line in _ends(units):
        say(Text(line), soft_wrap=True)
    for line in (*uncompared, *_uncompared_items(units)):
        say(Text(f"not compared: {line}"), soft_wrap=True)
    for test in dict.fromkeys(row["test"] for row in units):
        say(Text(f"p: {test} ({', '.join(_name(row) for row in units if row['test'] == test)})"), soft_wrap=True)
    for row in units:
        if row["part"] is None:
            _show_ids(row)


def _cells(row: UnitChange) -> list[str]:
    name = row["unit"] if row["part"] is None else f"  {row['part']}"
    numbers = [console.number(row["a"]), console.number(row["b"]), console.number(row["difference"], signed=True)]
    return [
        name,
        str(row["n"]),
        *numbers,
        console.span(row["interval"], signed=True),
        str(len(row["gained"])),
        str(len(row["lost"])),
        console.pvalue(row["p"]),
    ]


def _ends(units: Sequence[UnitChange]) -> list[str]:
    """How many completions were cut, and how many are exact, as far as that tells more than the accuracies."""
    lines = []
    for name, meaning in (("cut", "at the limit of new tokens"), ("exact", "the answer and nothing else")):
        told = []
        for row in units:
            shares = (row["cut"], row["exact"])[name == "exact"]
            plain = (0.0, 0.0) if name == "cut" else (row["a"], row["b"])
            if any(differs(share, usual) for share, usual in zip(shares, plain, strict=True)):
                told.append(f"{_name(row)} {console.number(shares[0])} in A, {console.number(shares[1])} in B")
        lines += [f"{name} ({meaning}): {'; '.join(told)}"] if told else []
    return lines


def _name(row: UnitChange) -> str:
    return row["unit"] if row["part"] is None else row["part"]


def _uncompared_items(units: Sequence[UnitChange]) -> list[str]:
    """How many items of each unit were left out of the comparison, on which side, and a few of their names."""
    lines = []
    for row in (row for row in units if row["part"] is None):
        kinds = {"only in A": row["only_a"], "only in B": row["only_b"], "unscored in A or B": row["unscored"]}
        told = [f"{len(ids)} {kind} ({_few(ids)})" for kind, ids in kinds.items() if ids]
        if told:
            lines.append(f"{row['unit']}: {', '.join(told)}; {row['n']} were compared")
    return lines


def _few(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")


def _show_ids(row: UnitChange) -> None:
    for kind, ids in (("gained", row["gained"]), ("lost", row["lost"])):
        if ids:
            more = f" … and {len(ids) - LISTED} more (--json lists all)" if len(ids) > LISTED else ""
            text = f"{row['unit']}, {kind} in B: {', '.join(ids[:LISTED])}{more}"
            console.out.print(Text(text), soft_wrap=True)
