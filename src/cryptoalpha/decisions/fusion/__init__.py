"""Many opinions → one fused signal per instrument."""
