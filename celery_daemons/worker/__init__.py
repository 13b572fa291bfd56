"""Celery as the host: the steps that make a worker a node."""
