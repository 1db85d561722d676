"""The objects that an object needs in its namespace, by the names that it gives."""

from collections.abc import Iterator, Mapping
from typing import Any

Reference = tuple[str, str]
"""Kind and name."""

BY_NAME = {
    "secretKeyRef": "Secret",
    "secretRef": "Secret",
    "secret": "Secret",
    "imagePullSecrets": "Secret",
    "configMapKeyRef": "ConfigMap",
    "configMapRef": "ConfigMap",
    "configMap": "ConfigMap",
}
"""Keys under which an object, or each of a list, has a `name`."""
NAMES = {
    "secretName": "Secret",
    "serviceAccountName": "ServiceAccount",
    "claimName": "PersistentVolumeClaim",
}
"""Keys whose values are names."""


def references(value: Any) -> Iterator[Reference]:
    """Yield what an object names; not what its pods can do without."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    if not isinstance(value, Mapping) or value.get("optional") is True:
        return
    for key, inner in value.items():
        if key in NAMES and isinstance(inner, str):
            yield NAMES[key], inner
        if key in BY_NAME:
            for item in inner if isinstance(inner, list) else [inner]:
                if isinstance(item, Mapping) and item.get("optional") is not True and "name" in item:
                    yield BY_NAME[key], str(item["name"])
        yield from references(inner)
