"""What an operator watches a federation with: rules for Prometheus, dashboards for Grafana, and the proof of both."""
