"""The process that runs daemons (``celery_daemons.host`` in ``ps``); the only package beside which user code runs."""
