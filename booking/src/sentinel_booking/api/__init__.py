"""The JSON interface. Views hold no SQL."""
