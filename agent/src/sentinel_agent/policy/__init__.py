"""The policy: what it says, and the files on the node in which it is kept for the gates."""
