"""Benchmarks by the EleutherAI harness."""
