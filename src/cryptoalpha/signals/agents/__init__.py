"""Agents: what turns streams of observations into signals, live, as the signal book does over a stored history."""
