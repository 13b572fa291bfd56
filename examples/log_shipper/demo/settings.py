"""The workers' settings for the demo, as a Celery configuration module (``CELERY_CONFIG_MODULE``).

A lease of two seconds instead of five makes the demo shorter.
"""

daemons_lease_ttl = 2.0
daemons_heartbeat_interval = 0.4
daemons_drain_timeout = 10.0
# Time without joins and leaves before rebalancing, and time between two scans for new files.
daemons_settle_delay = 1.0
daemons_scan_interval = 5.0
