"""TEMPORARY."""

from components.release.kubernetes_api import *  # noqa: F403
from components.release.kubernetes_api import Api, ApiError, UnknownKindError, UnreachableError  # noqa: F401
from components.release.manifest import Object  # noqa: F401
