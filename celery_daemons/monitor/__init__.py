"""The elected monitor (``celery_daemons.monitor`` in ``ps``): scans, plans and assigns daemons under one epoch."""
