"""What the agent, its hosts and the monitor share as processes: messages, channels, titles, the user's app."""
