"""What CI runs, and a developer can run by hand: `python -m operations --help`."""
