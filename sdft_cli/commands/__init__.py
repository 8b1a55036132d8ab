"""One file a command: prepare, train, eval, probe, report, compare, grade, sweep, demo."""
