"""Rules about validation data reaching the weights or the artifact."""
