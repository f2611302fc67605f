"""The lock on sshd and PAM: its text, and the way from open to locked and back."""
