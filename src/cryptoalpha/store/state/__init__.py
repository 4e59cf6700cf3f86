"""Small shared state by name: SQLite on one machine, Redis for many."""
