"""The pages. Views hold no SQL."""
