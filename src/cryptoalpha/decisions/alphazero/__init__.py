"""Trading agents that plan: market state → scenarios → the position that earns most after costs."""
