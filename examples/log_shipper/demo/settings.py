"""The workers' settings for the demo, as a Celery configuration module (``CELERY_CONFIG_MODULE``).

A lease that runs out after two seconds, instead of five, makes for a shorter show.
"""

daemons_lease_ttl = 2.0
daemons_heartbeat_interval = 0.4
daemons_drain_timeout = 10.0
# Of waiting for calm before balance is restored, and between two looks for new files.
daemons_settle_delay = 1.0
daemons_scan_interval = 5.0
