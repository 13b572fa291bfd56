"""What clients do with a cluster: look up, list, steer; with or without a Celery app."""
