"""What was decided and what came of it, kept in bounded memory for learning: the buffer, its sampling, its targets, its file."""
