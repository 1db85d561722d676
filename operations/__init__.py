"""What is done around a deployment, by purpose: in CI, for pull requests, going back, and moving once."""
