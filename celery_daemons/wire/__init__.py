"""The messages between processes: frames, message types and the spawn task."""
