"""Makes the dashboards; their JSON is committed beside it."""
