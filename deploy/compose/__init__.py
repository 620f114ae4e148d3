"""One machine with Docker: the gateway, Prometheus and Grafana."""
