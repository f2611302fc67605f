"""Why somebody can or cannot log in now, in plain words."""
