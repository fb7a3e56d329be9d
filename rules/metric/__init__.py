"""Rules about how the number is computed."""
