"""The faults of a stack's config, each with the command that mends it.

What `pulumi config` does with a path, as its code has it and as was tried: `set` makes the objects on the
way, and puts one in place of text at the top, but nowhere else and never in place of a list. It keeps
the quotes of the text that stood there, also around a number. Without --path, a key is taken as it stands.
"""

import contextlib
import difflib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from components.release.values import ABSENT, Path, get, leaves, pulumi_path
from settings.images import TAG_PATTERN, USAGE, ImageReference, read_images
from settings.model import (
    CONTROLLER_VALUES,
    IMAGE_TAG_VARIABLE,
    KEYS,
    OBJECT_KEYS,
    PROJECT,
    SECRET_KEYS,
    SECRET_VALUES,
    StackConfig,
    fields_of,
    has_existing_secret,
    model_in,
)

MOST_LEVELS = 100

DATE = re.compile(r"\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} .+")
"""The text that the engine makes of a date in YAML."""

MISSING = "is missing"
FROM_A_PIPE = ": of what comes through a pipe, Pulumi takes off one line feed at the end and nothing else"
REMOVE = "pulumi config rm"
SET_SECRET = "pulumi config set --secret"  # noqa: S105
STACK = "\0"
"""Where a command names the stack."""
EDIT = "edit the stack file: no command can name this key"
OPTION = "--image "
"""Before a part of the chart, in the key of a fault that is not in the config."""

TYPES = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "list_type": "a list",
    "string_type": "text: put it in quotes",
}


@dataclass(frozen=True, order=True)
class Fault:
    """A fault of a stack's config; it holds no value, which may be a credential."""

    key: str
    """Key or path, without `mern:`; or an option of the command line."""
    text: str
    """The rest of a sentence that begins with the key."""
    remedy: str
    """The command that mends it, with STACK for the name of the stack."""

    @property
    def typed(self) -> str:
        """The key as the user typed it."""
        return self.key if self.key.startswith(OPTION) else f"{PROJECT}:{self.key}"


def check(
    config: Mapping[str, str], secret: set[str], written_tag: str | None, run_tag: str | None
) -> tuple[dict[str, Any], list[Fault]]:
    """Return the values in `config`, with objects decoded, and all faults; see `Settings.parse`."""
    unknown = [_unknown_key(key) for key in config if key not in KEYS]
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for key, text in ((key, config[key]) for key in KEYS if key in config):
        faults += _encryption_faults(key, text, key in secret)
        try:
            values[key] = _decode(text) if key in OBJECT_KEYS else text
        except RecursionError:
            faults.append(Fault(key, f"is nested more than {MOST_LEVELS} levels deep", _remove((key,))))
    if run_tag is not None:
        values["imageTag"] = run_tag
    elif written_tag is not None and _is_same_number(written_tag, values.get("imageTag")):
        faults += _misread_tag(written_tag, values["imageTag"])
        values["imageTag"] = written_tag
    present = {fault.key for fault in faults}
    types = [fault for fault in _type_faults(values) if fault.text != MISSING or fault.key not in present]
    faults += [_blame_variable(fault) if run_tag and fault.key == "imageTag" else fault for fault in types]
    faults += _contradictions(values)
    # What has to go needs no better text, and quotes come before the question of what the text says.
    removed = {fault.key for fault in faults if fault.remedy.startswith(REMOVE)}
    faults = [
        fault for fault in faults if fault.key not in removed or not fault.remedy.startswith(SET_SECRET)
    ]
    dates = {fault.key: fault for fault in _misread_dates(values) if fault.key not in removed}
    return values, [*unknown, *(fault for fault in faults if fault.key not in dates), *dates.values()]


def check_images(text: str, values: Mapping[str, Any]) -> tuple[dict[str, ImageReference], list[Fault]]:
    """Return the images that `--image` gives, by the part of the chart, and all faults.

    Args:
        text: all that the option was given.
        values: of the config, as `check` returns them.
    """
    images, wrong = read_images(text)
    faults = [Fault(f"{OPTION}{part}", fault, f"{OPTION}{USAGE}") for part, fault in wrong.items()]
    for part, image in images.items():
        path = ("values", part, "image", "repository")
        # A later run without the option keeps tag or digest, and has the repository from the config.
        if image.repository and get(values, path) != image.repository:
            fault = (
                f"names another repository than {PROJECT}:{pulumi_path(path)}, where later runs look for it"
            )
            faults.append(Fault(f"{OPTION}{part}", fault, _set(path, image.repository)))
    return images, faults


def report(faults: list[Fault], stack: str) -> str:
    """Return the message to the user: every fault once, each with its remedy."""
    unique = sorted(set(faults))
    count = "1 fault" if len(unique) == 1 else f"{len(unique)} faults"
    options = ", or in --image" if any(fault.key.startswith(OPTION) for fault in unique) else ""
    lines = [f"{count} in the config of stack {stack} (Pulumi.{stack}.yaml{options}):"]
    for fault in unique:
        remedy = fault.remedy.replace(STACK, stack)
        for line in (f"  {fault.typed} {fault.text}", f"      {remedy}"):
            lines.append("".join(char if char.isprintable() else "?" for char in line))
    return "\n".join(lines)


# ---- each key by itself


def _unknown_key(key: str) -> Fault:
    near = difflib.get_close_matches(key, KEYS, n=1)
    hint = f"; did you mean {PROJECT}:{near[0]}?" if near else ""
    if re.split(r"[.[]", key)[0] in OBJECT_KEYS:
        hint = ": what is inside of an object is set with --path"
    remedy = f"{REMOVE} {shlex.quote(f'{PROJECT}:{key}')} --stack {STACK}" if key.isprintable() else EDIT
    return Fault(key, f"is not a key of this project{hint}", remedy)


def _encryption_faults(key: str, text: str, encrypted: bool) -> Iterator[Fault]:
    if key in SECRET_KEYS and not encrypted and text != "{}":  # else there is nothing to encrypt
        yield Fault(key, "is not encrypted in the stack file", _set((key,)))
    elif key == "values" and encrypted:
        own = ", ".join(f"{PROJECT}:{name}" for name in sorted(SECRET_KEYS))
        text = f"holds a secret, which would hide all of it; credentials have keys of their own: {own}"
        yield Fault(key, text, _remove((key, "PATH", "OF", "THE", "SECRET")))
    elif key == "loadBalancerController" and encrypted and _has_values(text):
        return  # a secret of the controller's chart
    elif key not in SECRET_KEYS and encrypted:
        yield Fault(key, "is encrypted, but is no secret", _remove((key,)))


def _has_values(text: str) -> bool:
    with contextlib.suppress(RecursionError):
        return bool(get(_decode(text), ("values",)) not in (ABSENT, {}))
    return False


def _decode(text: str) -> Any:
    """Return the value that is JSON in `text`; `text` itself, which is no object, where it is not.

    Raises:
        RecursionError: it is nested more than MOST_LEVELS deep.
    """
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if _is_deeper(value, MOST_LEVELS):
        raise RecursionError
    return text if value is None else value  # None would pass for a key that is left out


def _is_deeper(value: Any, levels: int) -> bool:
    below = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deeper(inner, levels - 1) for inner in below)


# ---- types


def _type_faults(values: Mapping[str, Any]) -> list[Fault]:
    """Return what pydantic finds, in the user's words."""
    try:
        StackConfig.model_validate(values)
    except ValidationError as error:
        return [_explain(details, values) for details in error.errors(include_url=False)]
    return []


def _explain(error: Any, values: Mapping[str, Any]) -> Fault:  # noqa: PLR0912 - a table of kinds
    path, kind, limits = error["loc"], error["type"], error.get("ctx", {})
    is_name = path[-1] == "[key]" and get(values, path) is ABSENT
    if is_name:
        path = path[:-1]
    key, remedy = pulumi_path(path), _set(path)
    match kind:
        case "missing":
            return Fault(key, MISSING, remedy)
        case "extra_forbidden":
            return Fault(key, f"is not a key here; {_hint(path)}", _remove(path))
        case "form":
            return Fault(key, f"is not {limits['name']}", _remove(path) if is_name else remedy)
        case "hidden":
            characters = limits["characters"]
            reason = FROM_A_PIPE if "line feed" in characters or "carriage return" in characters else ""
            return Fault(key, f"has {characters}, which cannot be right{reason}", remedy)
        case "blank":
            return Fault(key, "holds nothing but blanks", remedy)
        case "literal_error":
            return Fault(key, f"is not one of {limits['expected']}", remedy)
        case "model_type" | "dict_type":
            is_in_the_way = len(path) > 1 or isinstance(get(values, path), list)
            return Fault(key, "is not an object", _remove(path) if is_in_the_way else remedy)
        case "string_too_short" | "too_short":
            return Fault(key, "is empty", remedy)
        case "value_error":
            return Fault(key, str(limits["error"]), _mend_choice(path, get(values, path)))
        case "list_type":
            return Fault(key, f"should be {TYPES[kind]}", _remove(path))
        case "string_type":
            example = ', as in accountId: "012345678901"' if path[-1] == "accountId" else ""
            return Fault(key, f"should be {TYPES[kind]}{example}", _set(path, text=True))
    if isinstance(get(values, path), str) and remedy != EDIT:
        remedy = f"{_remove(path)} && {remedy}"  # else the new value would get the quotes of the old
    expected = TYPES.get(kind) or re.sub(r"^Input should be ", "", error["msg"])
    return Fault(key, f"should be {expected}", remedy)


def _hint(path: Path) -> str:
    """Return the key that was meant instead of the last of `path`, or all there are."""
    fields = KEYS
    for key in path[:-1]:
        model = model_in(fields[str(key)].annotation)
        fields = fields_of(model) if model else {}
    near = difflib.get_close_matches(str(path[-1]), fields, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(fields)}"


def _mend_choice(path: Path, value: Mapping[str, Any]) -> str:
    """Return the command after which the cluster, or the script's role, is named in one way."""
    given = [key for key, inner in value.items() if inner is not None]
    of_file = [key for key in ("kubeconfig", "context") if key in given]
    if "policy" in given:
        return _remove((*path, "policy"))
    if "eksClusterName" in given:
        return _remove((*path, of_file[0] if len(of_file) == 1 else "eksClusterName"))
    if of_file:
        return _set((*path, "context" if "kubeconfig" in given else "kubeconfig"))
    return _set(path)


def _blame_variable(fault: Fault) -> Fault:
    """Return the fault of an image tag that does not come from the config."""
    text = f"{fault.text} (it comes from the variable {IMAGE_TAG_VARIABLE})"
    return replace(fault, text=text, remedy=f"export {IMAGE_TAG_VARIABLE}=VALUE")


# ---- YAML that takes text for something else, so that other text arrives here


def _misread_dates(values: Mapping[str, Any]) -> Iterator[Fault]:
    for key in values.keys() - SECRET_KEYS:
        for path, leaf in leaves(values[key], (key,), lists=True):
            is_object = path == (key,) and key in OBJECT_KEYS  # or was to be one
            if isinstance(leaf, str) and DATE.fullmatch(leaf) and not is_object:
                yield Fault(pulumi_path(path), "is a date to YAML: put it in quotes", _set(path, text=True))


def _misread_tag(written: str, tag: str) -> Iterator[Fault]:
    if re.fullmatch(TAG_PATTERN, written):  # else quotes would not mend it
        text = f"is written as {written} without quotes, the number {tag} to YAML: put it in quotes"
        yield Fault("imageTag", text, _set(("imageTag",), written))


def _is_same_number(written: str, read: str | None) -> bool:
    return written != read and _number(written) == _number(read) is not None


def _number(text: str | None) -> float | None:
    """Return the number that YAML takes `text` for; None where it takes it for none."""
    try:
        return int(re.sub(r"^0(?=[0-7]+$)", "0o", text or ""), 0)
    except ValueError:
        try:
            return float(text or "")
        except ValueError:
            return None


# ---- keys that need or exclude each other


def _contradictions(values: Mapping[str, Any]) -> Iterator[Fault]:
    overrides = values.get("values")
    server, script = (has_existing_secret(overrides, part) for part in ("mernServer", "pythonScript"))
    if "mongodbUri" not in values and not (server and script):
        yield Fault("mongodbUri", MISSING, _set(("mongodbUri",)))
    for key, unused in (
        ("mongodbUri", server and script),
        ("serverSecrets", server),
        ("awsAccessKeyId", script),
        ("awsSecretAccessKey", script),
    ):
        if unused and key in values:
            text = "is used by nothing: mern:values names an existingSecret instead"
            yield Fault(key, text, _remove((key,)))
    for place, key in SECRET_VALUES.items():
        path = ("values", *place.split("."))
        if get(values, path) is not ABSENT:
            text = f"is a secret: it comes from {PROJECT}:{key}"
            yield Fault(pulumi_path(path), text, _remove(path))
    yield from _keys_or_role(values, script)
    yield from _what_iam_refuses(values)
    yield from _needs_eks(values)
    yield from _own_values_of_controller(values)


def _keys_or_role(values: Mapping[str, Any], existing_secret: bool) -> Iterator[Fault]:
    names = ("awsAccessKeyId", "awsSecretAccessKey")
    present = [name for name in names if name in values]
    if "pythonScript" in values:
        for name in present:
            text = f"and {PROJECT}:pythonScript exclude each other: a role or keys"
            yield Fault(name, text, _remove((name,)))
    elif not existing_secret:
        for name in names:
            if name not in present:
                text = f"{MISSING} (or give a role: {PROJECT}:pythonScript.roleArn)"
                yield Fault(name, text, _set((name,)))


def _what_iam_refuses(values: Mapping[str, Any]) -> Iterator[Fault]:
    path = ("aws", "roles", "permissionsBoundary")
    account = re.match(r"arn:[a-z-]+:iam::([0-9]{12}):", str(get(values, path)))
    if account and account[1] != get(values, ("aws", "accountId")):
        text = f"is of another account than {PROJECT}:aws.accountId, and a role takes policies of its own"
        yield Fault(pulumi_path(path), text, _set(path))
    tags = get(values, ("aws", "tags"))
    keys = dict[str, str]()
    for key in tags if isinstance(tags, Mapping) else ():
        if (other := keys.setdefault(key.lower(), key)) != key:
            path = ("aws", "tags", key)
            yield Fault(pulumi_path(path), f"is the same key as {other} to IAM", _remove(path))


def _needs_eks(values: Mapping[str, Any]) -> Iterator[Fault]:
    cluster = values.get("cluster")
    if not isinstance(cluster, Mapping):
        return
    eks = f"needs an EKS cluster: set {PROJECT}:cluster.eksClusterName, or"
    if cluster.get("eksClusterName") is not None:
        if "aws" not in values:
            for path in (("aws", "accountId"), ("aws", "region")):
                yield Fault(pulumi_path(path), f"{MISSING}: an EKS cluster needs it", _set(path))
        return
    path = ("loadBalancerController", "mode")
    mode = get(values, path)
    if mode in ("install", "existing", "auto-mode"):
        yield Fault(pulumi_path(path), f"is {mode}, which {eks} mode none", _set(path, "none"))
    path = ("pythonScript", "identity")
    if get(values, path) == "pod-identity":
        yield Fault(pulumi_path(path), f"is pod-identity, which {eks} identity irsa", _set(path, "irsa"))
    script = values.get("pythonScript")
    if isinstance(script, Mapping) and script.get("policy") is not None:
        has_role = script.get("roleArn") is not None
        path = ("pythonScript", "policy" if has_role else "roleArn")
        remedy = _remove(path) if has_role else _set(path, "ARN")
        yield Fault("pythonScript", f"{eks} only the ARN of a role", remedy)


def _own_values_of_controller(values: Mapping[str, Any]) -> Iterator[Fault]:
    start: Path = ("loadBalancerController", "values")
    for owned in CONTROLLER_VALUES:
        for end in range(1, len(owned) + 1):
            path = (*start, *owned[:end])
            given = get(values, path)
            if given is ABSENT:
                break
            if end == len(owned):
                yield Fault(pulumi_path(path), "is set by this program, and cannot be another", _remove(path))
            elif not isinstance(given, Mapping):
                text = "is no object, and this program sets values in it"
                yield Fault(pulumi_path(path), text, _remove(path))
                break


# ---- commands


def _remove(path: Path) -> str:
    """Return the command that removes what stands at `path`."""
    return _command(REMOVE, path)


def _set(path: Path, value: str = "VALUE", *, text: bool = False) -> str:
    """Return the command that sets `path`, or a key in it that the user chooses where it is an object.

    Args:
        path: from a key of this project inwards.
        value: credentials have none: Pulumi asks for it.
        text: keep a value text that looks like a number.
    """
    key = path[0]
    if len(path) == 1 and key in OBJECT_KEYS:
        path = (key, "NAME" if key in SECRET_KEYS else "KEY")
    if key in SECRET_KEYS:
        return _command(SET_SECRET, path)
    # With --path, Pulumi writes digits as a number unless it is told the type.
    kind = "--type string " if text or path[-1] == "accountId" else ""
    return _command("pulumi config set", path, f" {kind}{value}")


def _command(start: str, path: Path, end: str = "") -> str:
    if any(not key.isprintable() or "\\" in key for key in path if isinstance(key, str)):
        return EDIT
    full = f"{PROJECT}:{pulumi_path(path)}"
    if len(path) == 1:
        return f"{start} {full}{end} --stack {STACK}"
    quoted = shlex.quote(full)
    quoted = quoted if quoted != full else f"'{full}'"
    return f"{start} --path {quoted}{end} --stack {STACK}"
