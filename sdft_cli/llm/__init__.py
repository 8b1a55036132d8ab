"""Another language model, behind an endpoint or on this machine: requests, replies, their cost, data made of them."""
