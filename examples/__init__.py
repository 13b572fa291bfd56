"""Small programs, one per idea. ``log_shipper`` is a complete one."""
