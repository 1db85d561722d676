"""What the workflows call: preview, deployment, drift check, health check, and their reports on GitHub."""
