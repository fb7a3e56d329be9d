"""Rules about state that is adapted while validation tokens are scored."""
