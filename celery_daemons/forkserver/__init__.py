"""How the processes of a node are forked, and how they are made to end."""
