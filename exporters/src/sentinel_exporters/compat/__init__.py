"""Other exporters' families, from the readings of our collectors. Asks no driver or tool."""
