"""How things learn and plan; takes callables, knows no network and no market."""
