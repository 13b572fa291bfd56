"""The elected monitor (``celery_daemons.monitor`` in ``ps``): scans, plans and dispatches under one epoch."""
