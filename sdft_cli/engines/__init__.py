"""Engines sample completions; every file here defines one: ENGINE, a class with the contract of `models.engine`."""
