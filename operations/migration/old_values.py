"""The values files of the Helm chart that this project replaces, and what becomes of each value."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from components.chart_values import image_tag_of, shared_image_tag
from components.release import helm_yaml
from components.release.values import ABSENT, get, leaves, merged, put, remove
from operations import credentials
from operations.credentials import normalized
from settings import IMAGES

CHART = Path(__file__).parents[2] / "chart"
Keys = tuple[str, ...]

PARTS = {
    "mernClient": ("mernclient", "client", "frontend"),
    "mernServer": ("mernserver", "server", "backend"),
    "pythonScript": ("pythonscript", "python", "script", "etl"),
    "ingress": ("ingress",),
}

# Old name to new, below a part and spelt as `normalized` does; a name stands for all that is below it.
RENAMED = {
    "replicacount": "replicas",
    "hpa": "autoscaling",
    "autoscaling.min": "autoscaling.minReplicas",
    "autoscaling.max": "autoscaling.maxReplicas",
    "autoscaling.targetcpu": "autoscaling.targetCPUUtilizationPercentage",
    "autoscaling.targetcpuutilization": "autoscaling.targetCPUUtilizationPercentage",
    "autoscaling.cpu": "autoscaling.targetCPUUtilizationPercentage",
    "autoscaling.memory": "autoscaling.targetMemoryUtilizationPercentage",
    "autoscaling.cpuutilization": "autoscaling.targetCPUUtilizationPercentage",
    "autoscaling.averageutilization": "autoscaling.targetCPUUtilizationPercentage",
    "autoscaling.targetmemory": "autoscaling.targetMemoryUtilizationPercentage",
    "autoscaling.targetmemoryutilization": "autoscaling.targetMemoryUtilizationPercentage",
    "image.name": "image.repository",
    "imagetag": "image.tag",
    "imagepullpolicy": "image.pullPolicy",
    "imagepullsecrets": "image.pullSecrets",
    "service.targetport": "containerPort",
    "healthcheckpath": "probes.path",
    "livenessprobe": "probes.liveness",
    "readinessprobe": "probes.readiness",
    "startupprobe": "probes.startup",
    "probes.liveness.httpget": "probes.liveness",
    "probes.readiness.httpget": "probes.readiness",
    "probes.startup.httpget": "probes.startup",
    "environment": "env",
    "cron": "schedule",
    "cronschedule": "schedule",
    "cronjob": "",
    "ingressclassname": "className",
    "host": "hosts",
}

ALB = "alb.ingress.kubernetes.io/"
# Annotations of the old Ingress that this chart composes from values.
ANNOTATIONS = {
    "kubernetes.io/ingress.class": "className",
    f"{ALB}scheme": "scheme",
    f"{ALB}target-type": "targetType",
    f"{ALB}group.name": "group.name",
    f"{ALB}group.order": "group.order",
    f"{ALB}healthcheck-path": "healthCheck.path",
    f"{ALB}healthcheck-interval-seconds": "healthCheck.intervalSeconds",
    f"{ALB}healthcheck-timeout-seconds": "healthCheck.timeoutSeconds",
    f"{ALB}healthy-threshold-count": "healthCheck.healthyThreshold",
    f"{ALB}unhealthy-threshold-count": "healthCheck.unhealthyThreshold",
    f"{ALB}success-codes": "healthCheck.successCodes",
    f"{ALB}ssl-policy": "tls.sslPolicy",
    f"{ALB}certificate-arn": "tls.certificateArns",
    f"{ALB}load-balancer-attributes": "loadBalancerAttributes",
    f"{ALB}target-group-attributes": "targetGroupAttributes",
}


class OldValuesError(Exception):
    """A values file that cannot be read; the message never quotes what is in it."""


@dataclass
class Moved:
    """The old values translated; each of them is in one of these."""

    values: dict[str, Any] = field(default_factory=dict)
    image_tag: str | None = None
    renamed: dict[str, str] = field(default_factory=dict)
    """Old path to new, where more than spelling changed."""
    credentials: dict[str, str | None] = field(default_factory=dict)
    """Old path to the key of the stack config; None where this project has no place for it."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Old path to the same under the new name of its part."""
    remarks: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    """Two old values for one new."""
    texts: dict[str, Any] = field(default_factory=dict, repr=False)
    """The credentials themselves, by their key, to see whether two old ones are the same."""


# ---- reading, as Helm reads


class _Reader(helm_yaml.Reader):
    """Helm's reader, which notes words that look like text and are not."""

    keys_stand_twice = False

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.unquoted: set[int] = set()
        """Their lines."""

    def scalar(self, event: Any) -> Any:
        value = super().scalar(event)
        looks_like_it = value is None or isinstance(value, str) or event.value.lower() == json.dumps(value)
        if not looks_like_it:
            self.unquoted.add(event.start_mark.line + 1)
        return value


def read(files: list[Path], remarks: list[str]) -> dict[str, Any]:
    """Return the values of `files` in Helm's order: mappings merge, the later replaces everything else.

    Raises:
        OldValuesError: a file cannot be read, or is not a mapping.
    """
    values: dict[str, Any] = {}
    for file in files:
        values = merged(values, _load(file, remarks))
    return values


def _load(file: Path, remarks: list[str]) -> dict[str, Any]:
    try:
        reader = _Reader(file.read_bytes())
        values = next((value for value, _, _ in reader.documents()), None)
    except OSError as error:
        raise OldValuesError(f"{file}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}:" if mark else ""
        raise OldValuesError(f"{file}:{line} {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError):
        raise OldValuesError(f"{file}: is not a YAML file that Helm could read") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise OldValuesError(f"{file}: holds no keys and values")
    for number in sorted(reader.unquoted):
        remarks.append(
            f"{file} line {number}: no quotes, so Helm reads a boolean or a number, and so does this"
        )
    return values


# ---- the chart's own values


def _schema_paths(schema: Any, root: Any, path: Keys = ()) -> Iterator[tuple[Keys, dict[str, Any]]]:
    while "$ref" in schema or "allOf" in schema:
        [only] = schema.get("allOf", [schema])
        schema = root["definitions"][only["$ref"].rsplit("/", 1)[1]]
    if path:
        yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from _schema_paths(below, root, (*path, name))


_ROOT = json.loads((CHART / "values.schema.json").read_text())
SCHEMAS: dict[Keys, dict[str, Any]] = dict(_schema_paths(_ROOT, _ROOT))
"""Every value of the chart by its path, with the part of the schema that describes it."""
del SCHEMAS[("global",)]  # allowed in every chart, and read by nothing in this one
_BY_NAME = {tuple(map(normalized, path)): path for path in SCHEMAS}


# ---- translating


def translate(old: Mapping[str, Any], remarks: list[str] | None = None) -> Moved:
    """Translate the old values: each is moved, a credential, or unknown; none is left out."""
    moved = Moved(remarks=remarks if remarks is not None else [])
    for key, value in old.items():
        part = next((new for new, names in PARTS.items() if normalized(key) in names), None)
        if part is not None:
            _walk(moved, part, (key,), (), value)
        elif (normalized(key),) in _BY_NAME:
            _walk(moved, None, (key,), (), value)
        else:
            _elsewhere(moved, (key,), value)
    _take_common_tag(moved)
    return moved


def _elsewhere(moved: Moved, old: Keys, value: Any) -> None:
    """Place a value from outside of the chart's parts."""
    names = tuple(map(normalized, old))
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            _elsewhere(moved, (*old, key), below)
    elif credentials.is_credential(old, value):
        _credential(moved, None, old, value)
    elif (names in (("tag",), ("imagetag",)) or names[-2:] == ("image", "tag")) and (
        value is None or _is_text(value)
    ):
        _common_tag(moved, old, value)
    else:
        moved.unknown[".".join(old)] = ".".join(old)


def _common_tag(moved: Moved, old: Keys, value: Any) -> None:
    tag = str(_as({"type": "string"}, value) or "") or moved.image_tag
    if moved.image_tag not in (None, tag):
        moved.conflicts.append(f"{'.'.join(old)} and another old value both mean mern:imageTag")
    moved.image_tag = tag


def _walk(moved: Moved, part: str | None, old: Keys, below: Keys, value: Any) -> None:
    """Place `value`, which stood at `old`: `below` is its path under `part`."""
    if credentials.is_credential(old, value):
        _credential(moved, part, old, value)
        return
    if part is None:
        new: Keys | None = _BY_NAME.get(tuple(map(normalized, old)))
    else:
        new = (part,) if not below else _BY_NAME.get((normalized(part), *_renamed(below)))
    if new is not None and _take(moved, old, new, value):
        return
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            _walk(moved, part, (*old, key), (*below, key), inner)
    else:
        moved.unknown[".".join(old)] = ".".join((part, *below) if part else old)


def _renamed(below: Keys) -> Keys:
    """Return the path under a part by its new names, as `normalized` spells them."""
    path = ".".join(map(normalized, below))
    for _ in range(3):  # `cronjob.hpa.min` takes three
        name = next(
            (n for n in sorted(RENAMED, key=len, reverse=True) if f"{path}.".startswith(f"{n}.")), None
        )
        if name is None:
            break
        path = f"{normalized(RENAMED[name])}{path.removeprefix(name)}".strip(".")
    return tuple(path.split("."))


def _take(moved: Moved, old: Keys, new: Keys, value: Any) -> bool:
    """Put `value` at `new` where it fits there; return whether it does."""
    schema = SCHEMAS[new]
    if new[1:] == ("image",) and isinstance(value, str):
        return _image(moved, old, new, value)
    if new[-1] == "repository" and isinstance(value, str) and re.search(r"@|:[^/]*$", value):
        return _image(moved, old, new[:-1], value)
    if new[-1] in ("env", "extraEnv"):
        return _environment(moved, old, new, value)
    if new == ("ingress", "annotations") and isinstance(value, Mapping):
        for name, text in value.items():
            _annotation(moved, old, name, text)
        return True
    if new == ("ingress", "hosts") and not credentials.holds_credential(value):
        return _hosts(moved, old, value)
    if new[-1] == "tag" and value in ("", None):
        return True  # given by --set: the stack's imageTag, or what runs
    if (
        "properties" in schema
        or new[-1] == "secrets"
        or (isinstance(value, Mapping) and not _is_object(schema))
    ):
        return False  # what is in it is taken one by one
    if credentials.holds_credential(value):
        moved.credentials[".".join(old)] = None
        return True
    if new[-1] == "pullSecrets" and isinstance(value, list):
        value = [item["name"] if isinstance(item, dict) and set(item) == {"name"} else item for item in value]
    _put(moved, old, new, _as(schema, value))
    return True


def _put(moved: Moved, old: Keys, new: Keys, value: Any) -> None:
    if get(moved.values, new) not in (ABSENT, value) or not put(moved.values, new, value):
        moved.conflicts.append(f"{'.'.join(old)} and another old value both mean {'.'.join(new)}")
        return
    if tuple(map(normalized, old[1:])) != tuple(map(normalized, new[1:])):
        moved.renamed[".".join(old)] = ".".join(new)


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object"


def _as(schema: Mapping[str, Any], value: Any) -> Any:
    """Return `value` in the type that the chart wants, where Helm's templates made no difference."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "object" in kinds and isinstance(value, Mapping):
        inner: Any = next(iter(schema.get("patternProperties", {}).values()), {})
        return {key: _as(inner, below) for key, below in value.items()}
    if "integer" in kinds and isinstance(value, str) and re.fullmatch(r"[1-9]\d{0,8}|0", value):
        return int(value)
    if kinds == ["string"] and isinstance(value, bool):
        return str(value).lower()
    if kinds == ["string"] and isinstance(value, int | float):
        return str(value)
    return value


def _image(moved: Moved, old: Keys, new: Keys, text: str) -> bool:
    name, _, digest = text.partition("@")
    match = re.fullmatch(r"(.*?)(?::([^:/]+))?", name)
    repository, tag = match.groups() if match else (name, None)
    for key, value in (("repository", repository), ("tag", tag), ("digest", digest)):
        if value:
            _put(moved, old, (*new, key), value)
    return True


def _environment(moved: Moved, old: Keys, new: Keys, value: Any) -> bool:
    """Place variables, given as a mapping or as the list of a container; return whether they are such."""
    if isinstance(value, Mapping):
        entries = [({"name": name, "value": text}, (*old, name)) for name, text in value.items()]
    elif isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value):
        entries = [(item, (*old, str(item["name"]))) for item in value]
    else:
        return False
    part, rest = new[0], []
    for item, path in entries:
        text = item.get("value", "")
        if set(item) - {"name", "value"}:
            if credentials.holds_credential(item):
                moved.credentials[".".join(path)] = None
            else:
                rest.append(item)
        elif credentials.is_credential(path, text):
            _credential(moved, part, path, text, variable=True)
        elif part == "pythonScript" and item["name"] in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            _put(moved, path, (part, "awsRegion"), text)
        elif _is_text(text):
            _put(moved, path, (part, "env", str(item["name"])), _as({"type": "string"}, text))
        else:
            names = [tuple(map(str, inner)) for inner, _ in leaves(text, path)]
            moved.unknown |= {".".join(keys): ".".join((part, "env", *keys[len(old) :])) for keys in names}
    if rest:
        _put(moved, old, (part, "extraEnv"), rest)
    return True


def _annotation(moved: Moved, old: Keys, name: str, value: Any) -> None:
    path = (*old, name)
    target = ANNOTATIONS.get(name)
    if credentials.holds_credential({name: value}):
        moved.credentials[".".join(path)] = None
    elif not _is_text(value) or name in (f"{ALB}listen-ports", f"{ALB}ssl-redirect"):
        moved.unknown[".".join(path)] = "ingress.tls"
    elif target is None:
        _put(moved, path, ("ingress", "annotations", name), _as({"type": "string"}, value))
    else:
        new = ("ingress", *target.split("."))
        text = str(_as({"type": "string"}, value))
        if target.endswith("Attributes"):
            pairs = dict(pair.strip().partition("=")[::2] for pair in text.split(","))
            _put(moved, path, new, pairs)
        elif target == "tls.certificateArns":
            _put(moved, path, new, [arn.strip() for arn in text.split(",")])
            _put(moved, path, ("ingress", "tls", "enabled"), True)
        else:
            _put(moved, path, new, _as(SCHEMAS[new], text))


def _hosts(moved: Moved, old: Keys, value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    hosts = [item.get("host") if isinstance(item, dict) else item for item in items]
    if not all(isinstance(host, str) for host in hosts):
        return False
    if any(hosts):
        _put(moved, old, ("ingress", "hosts"), [host for host in hosts if host])
    for number, item in enumerate(items):
        if isinstance(item, dict):
            for key in item.keys() - {"host"}:
                moved.unknown[f"{'.'.join(old)}[{number}].{key}"] = "ingress.serverPaths"
    return True


def _take_common_tag(moved: Moved) -> None:
    """Make one tag for all images the stack's `imageTag`."""
    tag = moved.image_tag or shared_image_tag(moved.values)
    if tag is None:
        return
    moved.image_tag = tag
    for part in IMAGES:
        if image_tag_of(moved.values, part) == tag:
            remove(moved.values, (part, "image", "tag"))


# ---- credentials


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _credential(moved: Moved, part: str | None, old: Keys, value: Any, variable: bool = False) -> None:
    words = normalized("".join(old)).replace(".", "")
    name = re.sub(r"[^A-Z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", old[-1]).upper())
    mongodb = re.search(r"(mongo|atlas|database|db).*(uri|url)$", words) or str(value).startswith("mongodb")
    key: str | None = None
    if part in (None, "pythonScript") and re.search(r"secret(access)?key$", words):
        key = "awsSecretAccessKey"
    elif part in (None, "pythonScript") and re.search(r"accesskey(id)?$", words):
        key = "awsAccessKeyId"
    elif mongodb and (name == "MONGODB_URI" or not variable):
        key = "mongodbUri"
    elif part in (None, "mernServer"):
        key = f"serverSecrets.{name}"
    path = ".".join(old)
    if key and value and moved.texts.setdefault(key, value) != value:
        moved.remarks.append(f"{path} is another one than the first for mern:{key}, which takes only one")
    moved.credentials[path] = key
