"""Retraining: what asks for it, the campaign that answers, step by step, and what a kill leaves of it."""
