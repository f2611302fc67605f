"""A client for BMCs over IPMI 2.0, on pyghmi. Knows neither HTTP nor Prometheus."""
