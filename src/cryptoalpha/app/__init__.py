"""The front door, and the only place where rooms meet."""
