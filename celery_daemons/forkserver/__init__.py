"""The fork server that starts hosts and the monitor, and the timer that ends a process with its lease."""
