"""Named daemons that always run, each exactly once, on the Celery workers you already have."""
