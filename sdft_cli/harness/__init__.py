"""Benchmarks by the EleutherAI harness, and the sandbox for the code that some of them make a model write."""
