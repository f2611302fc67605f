"""Who is on the node, who may stay, who waits for whom, and the end of those who must go."""
