"""Decision → order or refusal, every cut by a named limit."""
