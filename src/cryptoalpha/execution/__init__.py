"""Order → fill → portfolio."""
