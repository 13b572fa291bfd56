"""Random faults against a real cluster, and a count of what they did: ``make chaos MINUTES=n SEED=s``."""
