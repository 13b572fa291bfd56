"""The agent's decisions about its daemons: events in, commands out. Imports ``domain`` only."""
