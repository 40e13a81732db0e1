"""What `deploy/` holds: rules and dashboards over the server's metrics."""
