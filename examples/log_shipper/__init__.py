"""Ships the lines of many growing log files into Redis, each exactly once: one daemon a file."""
