"""What the control plane says about itself: structured logs and Prometheus metrics."""
