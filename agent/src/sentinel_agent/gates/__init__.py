"""The two programs that a login asks, and what the agent knows of them."""
