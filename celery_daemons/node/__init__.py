"""The agent beside a worker: it holds the node's lease and keeps the daemons that are assigned to the node alive."""
