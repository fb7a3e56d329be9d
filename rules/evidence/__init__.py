"""Rules of the group evidence: does the claim follow from what was shown."""
