"""Rules about time, size and what may run."""
