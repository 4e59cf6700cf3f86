"""Learning beside a running loop: a challenger is taught in a process of its own; the loop never waits for a gradient."""
