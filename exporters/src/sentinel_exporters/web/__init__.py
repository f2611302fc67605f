"""Who may ask, and how what is said is encrypted, by Prometheus' web configuration file."""
