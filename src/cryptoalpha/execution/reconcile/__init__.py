"""What the venue says against what we believe: corrections, and which promises are broken."""
