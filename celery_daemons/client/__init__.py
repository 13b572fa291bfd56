"""Calls from any process: look-ups, changes to what should run, and a live replica of the address book."""
