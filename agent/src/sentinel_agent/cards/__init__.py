"""Who may open which card's device file, and the end of those who must not."""
