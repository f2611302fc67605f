"""Installing the lock on a node, checking what is installed, taking it away."""
