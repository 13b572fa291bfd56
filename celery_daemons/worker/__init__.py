"""The part that runs in the Celery worker itself: boot steps, and the handling of the agent process."""
