"""One file per command: prepare, train, eval, probe, report, compare, grade, sweep, demo."""
