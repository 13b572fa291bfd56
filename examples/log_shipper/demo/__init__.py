"""The log shipper on real workers that are killed, paused and drained, with an audit of every line."""
