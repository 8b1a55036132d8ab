"""Programs that a model writes, run where they can do no harm."""
