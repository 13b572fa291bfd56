"""What the tests stand on: real servers, real workers, a network that can be broken, and waiting with an end."""
