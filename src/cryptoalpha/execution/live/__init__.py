"""Orders at a real venue: the one client that may send, and the broker that stands before it."""
