"""Rules that read an answer out of a completion."""
