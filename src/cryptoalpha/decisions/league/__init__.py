"""A league of agents in one market whose price they move: played, rated, and trained against its own past."""
