"""What passes between the node and the booking server: identity, requests, devices."""
