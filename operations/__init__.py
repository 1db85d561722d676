"""What is done around a deployment, in CI and by hand: `python -m operations --help`."""
