"""Rules about what the network itself lets through."""
