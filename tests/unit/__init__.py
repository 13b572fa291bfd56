"""Tests that start nothing: no server, no worker, no clock but a made-up one."""
