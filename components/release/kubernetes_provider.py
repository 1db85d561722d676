"""What differs between versions of the Kubernetes provider."""

import os
from importlib import metadata

VERSION_VARIABLE = "RELEASE_PROVIDER_VERSION"
"""Names the provider's version where it is not that of the package `pulumi-kubernetes`."""


def keeps_nulls() -> bool:
    """Return whether a null among the values reaches Helm, where it removes the chart's default.

    It does since version 4.30 (issue 2997 in the provider's changelog). Before, the provider takes nulls out;
    empty lists too, unless `allowNullValues` is set. Since then that argument is deprecated, with a warning.
    """
    version = os.environ.get(VERSION_VARIABLE) or metadata.version("pulumi-kubernetes")
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= (4, 30)
