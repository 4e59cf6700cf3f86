"""How traffic moves from one version to the next: the split, the canary controller, the A/B report."""
