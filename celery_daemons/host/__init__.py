"""The process that runs daemons, ``celery_daemons.host`` in ``ps``. User code of daemons runs here only."""
