"""Alerts, recording rules and Grafana boards, rendered by ``python -m mixin``."""
