"""The config of a stack: the only place that defines and reads it.

`Settings.load()` reads every `mern:*` key of the stack, checks all of them, and either returns plain
typed values (credentials as `SecretStr`) or ends the program with one message that lists every fault,
each with the key as the user typed it and the command that mends it.
"""

from settings.images import IMAGES, IMAGES_VARIABLE, TAG_PATTERN, ImageReference, parse_image_reference
from settings.model import (
    IMAGE_TAG_VARIABLE,
    KEYS,
    SECRET_KEYS,
    SECRET_VALUES,
    AwsSettings,
    ClusterSettings,
    Identity,
    LoadBalancerControllerSettings,
    NamespaceSettings,
    ReleaseSettings,
    RolesSettings,
    has_existing_secret,
)
from settings.reading import Settings

__all__ = [
    "IMAGES",
    "IMAGES_VARIABLE",
    "IMAGE_TAG_VARIABLE",
    "KEYS",
    "SECRET_KEYS",
    "SECRET_VALUES",
    "TAG_PATTERN",
    "AwsSettings",
    "ClusterSettings",
    "Identity",
    "ImageReference",
    "LoadBalancerControllerSettings",
    "NamespaceSettings",
    "ReleaseSettings",
    "RolesSettings",
    "Settings",
    "has_existing_secret",
    "parse_image_reference",
]
