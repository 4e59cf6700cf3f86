"""Observations → features, signals and market state."""
