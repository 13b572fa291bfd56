"""A model of the protocol: simulated nodes and monitors around the real scripts, in a time that is the model's own."""
