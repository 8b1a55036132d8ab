"""Scoring a model, caching and comparing scores, and the gates on them."""
