"""Every file here is one way to sample completions: ENGINE, a class with sample(), sync() and close()."""
