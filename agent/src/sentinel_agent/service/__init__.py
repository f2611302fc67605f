"""The daemon: its tasks, their threads, what they know of each other, and their series."""
