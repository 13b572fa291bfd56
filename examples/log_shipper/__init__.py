"""Ship the lines of many growing log files into Redis, each line exactly once: one daemon per file."""
