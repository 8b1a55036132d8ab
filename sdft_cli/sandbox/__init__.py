"""Programs that a model writes, and libraries that may hang, run where they can do no harm."""
