"""A believable lab for a running system: people, nodes, bookings, and series that move."""
