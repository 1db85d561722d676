"""Errors that end the program with their text alone, without a stack trace."""

import pulumi


class ReleaseError(pulumi.RunError):
    """A release that may not be deployed: the fact, and what to do."""


class ChartError(ReleaseError):
    """A chart that cannot be loaded, or that Helm or the API server refuses."""
