"""Rules about the probabilities that are scored."""
