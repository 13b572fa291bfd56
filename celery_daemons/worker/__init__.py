"""What runs in the Celery worker's own process: boot steps and the agent's parent."""
