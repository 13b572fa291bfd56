"""One small program per idea; ``log_shipper`` is the whole of it."""
