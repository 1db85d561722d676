"""What a stack's config says: the only place that defines and reads it.

`Settings.load()` reads every `mern:*` key of the stack, checks all of them, and either returns plain
typed values (credentials as `SecretStr`) or ends the program with one message that lists every fault,
each with the key as the user typed it and the command that mends it.
"""

import difflib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pulumi
import pulumi.runtime.config as engine
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

PROJECT = "mern"
IMAGE_TAG_VARIABLE = "MERN_IMAGE_TAG"
"""An image tag for one run, in place of `mern:imageTag`: given as config, it would be saved."""

NonEmpty = Annotated[str, StringConstraints(min_length=1)]
DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
EksName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
AccountId = Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")]
Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")]
RoleArn = Annotated[str, StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]+$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Secret = Annotated[SecretStr, Field(min_length=1)]
TAG_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
ImageTag = Annotated[str, StringConstraints(pattern=TAG_PATTERN)]
Repository = Annotated[str, StringConstraints(pattern=r"^(https?|oci)://[!-~]+$")]

PATTERNS = {
    r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$": "a name of at most 63 lower-case letters, digits and -",
    r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$": "the name of an EKS cluster",
    r"^(https?|oci)://[!-~]+$": "the address of a chart repository, as in https://aws.github.io/eks-charts",
    r"^[0-9]{12}$": "an AWS account id, 12 digits",
    r"^[a-z]{2}(-[a-z]+)+-[0-9]$": "an AWS region, as in eu-central-1",
    r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]+$": "the ARN of an IAM role",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "the name of an environment variable",
    TAG_PATTERN: "a tag of a container image",
}

# How the engine hands over what YAML takes for a date.
DATE = re.compile(r"\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} .+")

TYPES = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "string_type": "text: put it in quotes",
}

# Where the chart takes its credentials, and the key of the stack config that fills the place.
SECRET_VALUES = {
    "mernServer.mongodbUri": "mongodbUri",
    "mernServer.secrets": "serverSecrets",
    "pythonScript.mongodbUri": "mongodbUri",
    "pythonScript.awsAccessKeyId": "awsAccessKeyId",
    "pythonScript.awsSecretAccessKey": "awsSecretAccessKey",
}


class Model(BaseModel):
    """A part of the config: typed strictly, closed, written in camelCase."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


class ClusterSettings(Model):
    """Where to deploy: an EKS cluster by its name, or a context of a kube config."""

    eks_cluster_name: EksName | None = None
    kubeconfig: NonEmpty | None = None
    """Path of a kube config; `~` is the home folder, a relative path starts at the project."""
    context: NonEmpty | None = None

    @model_validator(mode="after")
    def one_way(self) -> "ClusterSettings":
        by_file = (self.kubeconfig is not None, self.context is not None)
        if by_file != (self.eks_cluster_name is None,) * 2:
            raise ValueError("needs either eksClusterName, or kubeconfig together with context")
        return self


class AwsSettings(Model):
    """The AWS account and region that the stack belongs to."""

    account_id: AccountId
    region: Region


class NamespaceSettings(Model):
    """The namespace of the application."""

    name: DnsLabel
    mode: Literal["create", "existing"] = "create"
    """`create`: this stack owns it. `existing`: someone else does, and it only gets labels."""
    protect: bool = False
    """Refuse to delete it (with everything in it) until this is switched off."""


Identity = Literal["irsa", "pod-identity"]


class PythonScriptSettings(Model):
    """How python-script reaches AWS without keys: by a role that is there, or one of this stack."""

    role_arn: RoleArn | None = None
    policy: dict[str, Any] | None = None
    """IAM policy document of a role that this stack makes."""
    identity: Identity = "irsa"

    @model_validator(mode="after")
    def one_role(self) -> "PythonScriptSettings":
        if (self.role_arn is None) == (self.policy is None):
            raise ValueError("needs either roleArn, or policy")
        return self


class LoadBalancerControllerSettings(Model):
    """The AWS Load Balancer Controller."""

    mode: Literal["install", "existing", "auto-mode", "none"] = "none"
    """`install`: this stack owns it. `existing`: somebody else does; it is looked at and not touched.
    `auto-mode`: EKS Auto Mode has one of its own. `none`: no Ingress is served, and nothing looked at."""
    identity: Identity = "irsa"
    chart_repository: Repository = "https://aws.github.io/eks-charts"


class ChecksSettings(Model):
    """What is looked at before a deployment to EKS."""

    ingress_class: bool = True
    subnets: bool = True
    certificates: bool = True
    identity: bool = True


class ReleaseSettings(Model):
    """How the chart is deployed."""

    timeout: Annotated[int, Field(ge=1, le=86_400)] = 300
    """Seconds that Helm waits for the objects to become ready before it rolls back."""
    show_objects: bool = True
    """Show the chart's Kubernetes objects in Pulumi's tree."""
    dry_run: bool = True
    """Ask the API server about each object before anything is changed."""
    drift: Literal["ignore", "report", "restore"] = "report"
    """Objects changed by hand in the cluster: do not look, say so, or put them back."""
    leave: list[NonEmpty] = []
    """Fields that others may change, as `Deployment/mern-server:spec.replicas`; `*` is any text."""
    adopt: bool = False
    """Take over a release of this name, and its namespace, that are there and not this stack's."""
    unlock_revision: Annotated[int, Field(ge=1)] | None = None
    """A revision that a killed run has left pending: mark it failed at once and go on."""


class Settings(Model):
    """The config of one stack."""

    cluster: ClusterSettings
    aws: AwsSettings | None = None
    namespace: NamespaceSettings
    values: dict[str, Any] = {}
    """Overrides of the chart's values; the chart's own schema checks them."""
    image_tag: ImageTag | None = None
    """Tag of all images that `values` gives none; absent: keep what runs."""
    mongodb_uri: Secret | None = None
    server_secrets: dict[EnvName, Secret] = {}
    aws_access_key_id: Secret | None = None
    aws_secret_access_key: Secret | None = None
    python_script: PythonScriptSettings | None = None
    load_balancer_controller: LoadBalancerControllerSettings = LoadBalancerControllerSettings()
    checks: ChecksSettings = ChecksSettings()
    release: ReleaseSettings = ReleaseSettings()

    @classmethod
    def load(cls) -> "Settings":
        """The settings of the stack that runs.

        Raises:
            pulumi.RunError: with every fault of the stack's config.
        """
        config = {**engine.get_config_env(), **engine.CONFIG.get()}
        secret = {key for key in config if engine.is_config_secret(key)}
        secret |= set(engine.get_config_secret_keys_env())
        prefix = f"{PROJECT}:"
        own = {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}
        stack = pulumi.get_stack()
        written = _plain_text(Path(f"Pulumi.{stack}.yaml"), f"{prefix}imageTag")
        if tag := os.environ.get(IMAGE_TAG_VARIABLE):
            own["imageTag"], written = tag, None
        return cls.parse(own, {key.removeprefix(prefix) for key in secret}, stack, written)

    @classmethod
    def parse(
        cls, config: Mapping[str, str], secret: set[str], stack: str, written_tag: str | None = None
    ) -> "Settings":
        """The settings in `config`, as the engine hands it over: strings, objects as JSON.

        Args:
            config: key (without `mern:`) to text.
            secret: the keys that the stack file holds encrypted.
            stack: name of the stack, for the commands in the message.
            written_tag: how the stack file writes `imageTag` where it stands there without quotes.

        Raises:
            pulumi.RunError: with every fault of the config.
        """
        values, faults = {}, []
        for key, text in config.items():
            if key not in KEYS:
                near = difflib.get_close_matches(key, KEYS, n=1)
                hint = f"; did you mean {PROJECT}:{near[0]}?" if near else ""
                if key.split(".", 1)[0] in OBJECT_KEYS:
                    hint = ": what is inside of an object is set with --path"
                mend = f"pulumi config rm {shlex.quote(f'{PROJECT}:{key}')}"
                faults.append((key, f"is not a key of this project{hint}", mend))
            elif key in SECRET_KEYS and key not in secret:
                faults.append((key, "is not encrypted in the stack file", _set_secret(key)))
            elif key not in SECRET_KEYS and key in secret:
                inner = "values.PATH.OF.THE.SECRET" if key == "values" else key
                faults.append((key, _why_not_secret(key), f"pulumi config rm {_path(inner)}"))
            try:
                value = json.loads(text) if key in OBJECT_KEYS else text
            except (ValueError, RecursionError):
                faults.append((key, "is not an object", _set(key)))
                continue
            if _is_deeper(value, MOST_LEVELS):
                faults.append((key, f"is nested more than {MOST_LEVELS} levels deep", _set(key)))
            else:
                values[key] = value
        settings = None
        try:
            settings = cls.model_validate({k: v for k, v in values.items() if k in KEYS})
        except ValidationError as error:
            named = {key for key, *_ in faults}
            found = [fault for each in error.errors() for fault in _explain(each)]
            faults += [fault for fault in found if fault[0] not in named or fault[1] != "is missing"]
        faults += _contradictions(values)
        misread = {fault[0]: fault for fault in _misread(values, written_tag)}
        faults = [fault for fault in faults if fault[0] not in misread] + [*misread.values()]
        if faults or settings is None:
            raise pulumi.RunError(_report(faults, stack))
        return settings


KEYS = {field.alias or name: field for name, field in Settings.model_fields.items()}
SECRET_KEYS = {"mongodbUri", "serverSecrets", "awsAccessKeyId", "awsSecretAccessKey"}
MOST_LEVELS = 100
OBJECT_KEYS = set(KEYS) - {"imageTag", "mongodbUri", "awsAccessKeyId", "awsSecretAccessKey"}


def _is_deeper(value: Any, levels: int) -> bool:
    below = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deeper(inner, levels - 1) for inner in below)


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every path in `values`, as in `mernServer.image.tag`."""
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")


def has_existing_secret(overrides: Any, part: str) -> bool:
    """Whether `mern:values` names a Secret that somebody else fills for `part` of the chart."""
    inner = overrides.get(part) if isinstance(overrides, Mapping) else None
    return isinstance(inner, Mapping) and bool(inner.get("existingSecret"))


def _contradictions(values: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    faults = []
    overrides = values.get("values")
    server, script = (has_existing_secret(overrides, part) for part in ("mernServer", "pythonScript"))
    if "mongodbUri" not in values and not (server and script):
        faults.append(("mongodbUri", "is missing", _set_secret("mongodbUri")))
    for key, unused in (
        ("mongodbUri", server and script),
        ("serverSecrets", server),
        ("awsAccessKeyId", script),
        ("awsSecretAccessKey", script),
    ):
        if unused and key in values:
            faults.append((key, "is used by nothing: mern:values names an existingSecret instead",
                           f"pulumi config rm {PROJECT}:{key}"))  # fmt: skip
    for path in dotted(overrides) if isinstance(overrides, dict) else ():
        if path in SECRET_VALUES:
            key = SECRET_VALUES[path]
            faults.append((f"values.{path}", f"is a secret: it comes from {PROJECT}:{key}",
                           f"pulumi config rm {_path('values.' + path)}"))  # fmt: skip
    keys = [key for key in ("awsAccessKeyId", "awsSecretAccessKey") if key in values]
    if "pythonScript" in values:
        for key in keys:
            faults.append((key, f"and {PROJECT}:pythonScript exclude each other: a role or keys",
                           f"pulumi config rm {PROJECT}:{key}"))  # fmt: skip
    elif len(keys) < 2 and not script:
        for key in {"awsAccessKeyId", "awsSecretAccessKey"} - set(keys):
            what = f"is missing (or give a role: {PROJECT}:pythonScript.roleArn)"
            faults.append((key, what, _set_secret(key)))
    return faults + _needs_eks(values)


def _needs_eks(values: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    cluster, role = values.get("cluster"), values.get("pythonScript")
    if not isinstance(cluster, dict):
        return []
    if "eksClusterName" in cluster:
        if "aws" in values:
            return []
        what = "is missing: an EKS cluster needs it"
        return [(path, what, _set(path)) for path in ("aws.accountId", "aws.region")]
    faults = []
    controller = values.get("loadBalancerController")
    mode = controller.get("mode") if isinstance(controller, dict) else None
    if mode in ("install", "existing", "auto-mode"):
        faults.append(("loadBalancerController.mode", f"is {mode}, which needs an EKS cluster: "
                       f"set {PROJECT}:cluster.eksClusterName, or mode none",
                       f"pulumi config set {_path('loadBalancerController.mode')} none"))  # fmt: skip
    if isinstance(role, dict) and ("policy" in role or role.get("identity") == "pod-identity"):
        what = f"needs an EKS cluster: set {PROJECT}:cluster.eksClusterName, or only the ARN of a role"
        faults.append(("pythonScript", what, f"pulumi config set {_path('pythonScript.roleArn')} ARN"))
    return faults


def _misread(values: Mapping[str, Any], written_tag: str | None) -> list[tuple[str, str, str]]:
    """What YAML has taken for something else than text, so that another text arrived here."""
    faults = []
    for path, leaf in _leaves({key: value for key, value in values.items() if key not in SECRET_KEYS}):
        if isinstance(leaf, str) and DATE.fullmatch(leaf):
            faults.append((path, "is a date to YAML: put it in quotes", _set(path, text=True)))
    tag = values.get("imageTag")
    if written_tag != tag and _number(written_tag) == _number(tag) is not None:
        what = f"is written as {written_tag} without quotes, the number {tag} to YAML: put it in quotes"
        faults.append(("imageTag", what, f"pulumi config set {_path('imageTag')} {written_tag}"))
    return faults


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is none of an object or a list, with its path as Pulumi writes it."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _leaves(below, f"{path}[{number}]")
    else:
        yield path, value


def _plain_text(stack_file: Path, key: str) -> str | None:
    """What stands in the stack file at `key` without quotes; None where that cannot be told."""
    try:
        root: Any = yaml.compose(stack_file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        config = next(below for name, below in root.value if name.value == "config")
        found = next(below for name, below in config.value if name.value == key)
    except (OSError, ValueError, AttributeError, TypeError, StopIteration, yaml.YAMLError):
        return None
    return found.value if isinstance(found, yaml.ScalarNode) and found.style is None else None


def _number(text: str | None) -> float | None:
    """The number that YAML takes `text` for, if it does."""
    try:
        return int(re.sub(r"^0(?=[0-7]+$)", "0o", text or ""), 0)
    except ValueError:
        try:
            return float(text or "")
        except ValueError:
            return None


def _explain(found: Any) -> Iterator[tuple[str, str, str]]:
    """What pydantic found, in the user's words; never the value, which may be a credential."""
    path = ".".join(_segment(part) for part in found["loc"] if part != "[key]").replace(".[", "[")
    kind, limits = found["type"], found.get("ctx", {})
    mend = _set(path)
    if kind == "missing":
        yield path, "is missing", mend
    elif kind == "extra_forbidden":
        known = _known_keys(found["loc"][:-1])
        near = difflib.get_close_matches(str(found["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        yield path, f"is not a key here; {hint}", f"pulumi config rm {_path(path)}"
    elif kind == "string_pattern_mismatch":
        yield path, f"is not {PATTERNS[limits['pattern']]}", mend
    elif kind == "literal_error":
        yield path, f"is not one of {limits['expected']}", mend
    elif kind in ("model_type", "dict_type"):
        yield path, "is not an object", mend
    elif kind in ("string_too_short", "too_short"):
        yield path, "is empty", mend
    elif kind == "value_error":
        yield path, str(limits["error"]), mend
    elif kind in TYPES:
        example = ', as in accountId: "012345678901"' if path.endswith(".accountId") else ""
        yield path, f"should be {TYPES[kind]}{example}", _set(path, text=kind == "string_type")
    else:
        yield path, re.sub(r"^Input should be ", "should be ", found["msg"]), mend


def _segment(part: Any) -> str:
    """A part of a path as Pulumi has it."""
    if isinstance(part, int):
        return f"[{part}]"
    return part if re.fullmatch(r"[\w-]+", part) else f"[{json.dumps(part)}]"


def _known_keys(loc: tuple[Any, ...]) -> list[str]:
    """The keys of the model at `loc`."""
    model: Any = Settings
    for part in loc:
        annotation = next(f.annotation for f in model.model_fields.values() if f.alias == part)
        choices = [annotation, *getattr(annotation, "__args__", ())]
        model = next(c for c in choices if isinstance(c, type) and issubclass(c, BaseModel))
    return [field.alias for field in model.model_fields.values()]


def _why_not_secret(key: str) -> str:
    if key == "values":
        secrets = ", ".join(f"{PROJECT}:{name}" for name in sorted(set(SECRET_VALUES.values())))
        return f"holds a secret, which would hide all of it; credentials have keys of their own: {secrets}"
    return "is encrypted, but is no secret"


def _path(path: str) -> str:
    full = f"{PROJECT}:{path}"
    quoted = shlex.quote(full)
    if not re.search(r"[.[]", path):
        return quoted
    return f"--path {quoted}" if quoted != full else f"--path '{full}'"


def _set(path: str, text: bool = False) -> str:
    """The command that sets the key at `path`; `text`: also where the value looks like a number."""
    top = path.split(".", maxsplit=1)[0]
    if top in SECRET_KEYS:
        return _set_secret(top)
    if path in OBJECT_KEYS:
        path += ".KEY"
    # With --path, Pulumi writes digits as a number unless it is told the type.
    kind = "--type string " if text or path.endswith(".accountId") else ""
    return f"pulumi config set {_path(path)} {kind}VALUE"


def _set_secret(key: str) -> str:
    path = f"--path '{PROJECT}:{key}.NAME'" if key == "serverSecrets" else f"{PROJECT}:{key}"
    return f"pulumi config set --secret {path}"


def _report(faults: list[tuple[str, str, str]], stack: str) -> str:
    unique = sorted(dict.fromkeys(faults))
    count = "1 fault" if len(unique) == 1 else f"{len(unique)} faults"
    lines = [f"{count} in the config of stack {stack} (Pulumi.{stack}.yaml):"]
    for key, what, mend in unique:
        for line in (f"  {PROJECT}:{key} {what}", f"      {mend} --stack {stack}"):
            lines.append("".join(char if char.isprintable() else "?" for char in line))
    return "\n".join(lines)
