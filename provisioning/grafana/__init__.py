"""Makes the dashboards; their JSON is committed in `json/`, and a test compares the two."""
