"""What is done around a deployment, by purpose: in CI, going back, and moving from values files once."""
