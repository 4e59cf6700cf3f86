"""Alerts that something acts on: their rules, who hears them, and what is done: serving is scaled, retraining proposed."""
