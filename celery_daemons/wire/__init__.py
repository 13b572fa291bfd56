"""What the processes of a cluster say to each other: frames, messages and the spawn task."""
