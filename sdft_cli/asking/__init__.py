"""Asking another model: requests and replies, endpoint and local model, what is stored, paid for and made of it."""
