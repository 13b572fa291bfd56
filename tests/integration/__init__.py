"""Tests with real Celery workers and a real server."""
