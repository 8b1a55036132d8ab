"""Numbers as text."""

from sdft_cli import console


def test_numbers():
    assert console.number(0.9166) == "0.917" and console.number(None) == "-"
    assert console.number(0.02, signed=True) == "+0.020" and console.number(-0.0001, signed=True) == "0.000"
    assert console.span((0.1, 0.25)) == "[0.100, 0.250]" and console.span(None) == ""
    assert console.span((-0.1, 0.25), signed=True) == "[-0.100, +0.250]"


def test_clock():
    assert [console.clock(s) for s in (0, 42.4, 723, 3909, -1)] == ["0:00", "0:42", "12:03", "1:05:09", "0:00"]
