"""What was known, and when: sources that turn the world into stored observations."""
