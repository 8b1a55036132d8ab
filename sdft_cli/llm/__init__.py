"""Another model, behind an endpoint or on this machine: requests, replies, and what they cost."""
