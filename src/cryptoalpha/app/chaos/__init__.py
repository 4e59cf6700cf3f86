"""Kills, faults and foreign hands for live trading, by the hundred, and a checker that believes only the venue's books."""
