"""The agent (``-m celery_daemons.node``): one asyncio loop beside a worker that never imports user code."""
