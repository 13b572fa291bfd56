"""Calls from any process: look-ups, changes to what should run, and the live address book."""
