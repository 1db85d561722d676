"""One context of a kube config, checked, in a form that needs no other file.

The same text is given to the Kubernetes provider and to the program's own client. What kubectl refuses
(client-go, tools/clientcmd/validation.go), and what one of the two cannot do, is refused here by its key.
What kubectl leaves out is left out.
"""

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pulumi
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.release.connection import EXEC_CONFIG, EXEC_VERSIONS, is_proxy, load_client_certificate

KINDS = ("cluster", "user", "context")
ANONYMOUS = "anonymous"
REMOVED = {
    "gcp": "gcloud container clusters get-credentials CLUSTER",
    "azure": "kubelogin convert-kubeconfig",
    "oidc": "kubectl oidc-login setup --oidc-issuer-url=ISSUER --oidc-client-id=CLIENT",
}
"""The commands that write an exec plugin in place of an auth-provider."""
TYPES = {
    "bool_type": "is not true or false",
    "dict_type": "is not a mapping",
    "list_type": "is not a list",
    "model_type": "is not a mapping",
    "string_type": "is not text: put it in quotes",
}

Entry = dict[str, Any]


class Part(BaseModel):
    """A part of a kube config, with the keys that kubectl knows; it leaves out any other."""

    model_config = ConfigDict(strict=True, alias_generator=lambda name: name.replace("_", "-"))


class Extension(Part):
    name: str = ""
    extension: Any = None


class ClusterPart(Part):
    server: str | None = None
    tls_server_name: str | None = None
    insecure_skip_tls_verify: bool | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    proxy_url: str | None = None
    disable_compression: bool | None = None
    extensions: list[Extension] | None = None


class Variable(Part):
    name: str
    value: str | None = None


class ExecPart(Part):
    api_version: str | None = Field(None, alias="apiVersion")
    command: str | None = None
    args: list[str] | None = None
    env: list[Variable] | None = None
    install_hint: str | None = Field(None, alias="installHint")
    provide_cluster_info: bool | None = Field(None, alias="provideClusterInfo")
    interactive_mode: str | None = Field(None, alias="interactiveMode")


class UserPart(Part):
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = Field(None, alias="tokenFile")
    username: str | None = None
    password: str | None = None
    as_: str | None = Field(None, alias="as")
    as_uid: str | None = None
    as_groups: list[str] | None = None
    as_user_extra: dict[str, list[str]] | None = None
    auth_provider: dict[str, Any] | None = None
    exec: ExecPart | None = None


class ContextPart(Part):
    cluster: str | None = None
    user: str | None = None
    namespace: str | None = None


def read_context(files: str, context: str, stack: str) -> Entry:
    """Return `context` of the kube config in `files`: a path, or several, separated as in KUBECONFIG.

    `stack` is the one whose config names them, for the commands in messages.

    Raises:
        pulumi.RunError: there is none, or it cannot be used. The message holds no value of a credential.
    """
    # os.path leaves a home folder that nobody has as it is written, and pathlib raises RuntimeError.
    expanded = (os.path.expanduser(path) for path in files.split(os.pathsep) if path)  # noqa: PTH111
    paths = [Path(path) for path in expanded] or [Path(files)]
    shown = os.pathsep.join(map(str, paths))
    entries = _merged(paths, stack)
    if context not in entries["context"]:
        raise pulumi.RunError(
            f"mern:cluster.context: {shown} has no context {context}; it has "
            f"{', '.join(entries['context']) or 'none'}\n"
            f"      pulumi config set --path 'mern:cluster.context' CONTEXT --stack {stack}"
        )
    faults: list[str] = []
    chosen = _part(ContextPart, entries["context"][context][0], "contexts[].context", faults)

    if not chosen.get("user"):  # kubectl then asks without credentials
        chosen["user"] = ANONYMOUS
        entries["user"][ANONYMOUS] = (None, Path())
    parts: dict[str, Entry] = {}
    for kind, read in (("cluster", _cluster), ("user", _user)):
        name = chosen.get(kind)
        if name in entries[kind]:
            parts[kind] = read(*entries[kind][name], faults)
        elif not faults:
            fact = f"is {name}, which is not among {kind}s[].name" if name else "is missing"
            faults.append(f"contexts[].context.{kind} {fact}")
    if faults:
        lines = "".join(f"\n    - {fault}" for fault in faults)
        raise pulumi.RunError(f"mern:cluster.context: context {context} of {shown} cannot be used:{lines}")
    if parts["cluster"]["server"].startswith("http:"):
        # kubectl sends no credentials in the clear, but still says for whom it asks.
        parts["user"] = {key: value for key, value in parts["user"].items() if key.startswith("as")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": chosen["cluster"], "cluster": parts["cluster"]}],
        "users": [{"name": chosen["user"], "user": parts["user"]}],
        "contexts": [{"name": context, "context": chosen}],
        "current-context": context,
    }


# ---- files


def _merged(paths: list[Path], stack: str) -> dict[str, dict[str, tuple[Any, Path]]]:
    """Return the entries of all files by kind and name, each with the folder of its file.

    As in kubectl, the first file that has a name counts, and of several files some may be missing or empty.
    """
    merged: dict[str, dict[str, tuple[Any, Path]]] = {kind: {} for kind in KINDS}
    mend = f"\n      pulumi config set --path 'mern:cluster.kubeconfig' PATH --stack {stack}"
    missing = []
    for path in paths:
        try:
            # Of several documents kubectl reads the first.
            config = next(yaml.load_all(path.read_bytes(), _Loader), None)
            entries = [] if config is None and len(paths) > 1 else _named_entries(config)
        except OSError as error:
            missing.append(path)
            if not isinstance(error, FileNotFoundError) or missing == paths:
                raise pulumi.RunError(
                    f"mern:cluster.kubeconfig: cannot read {path}: {error.strerror}{mend}"
                ) from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, _NoKubeConfigError) else ""
            if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
                reason = f"its line {error.problem_mark.line + 1} is not YAML"
            rest = f": {reason}" if reason else mend
            raise pulumi.RunError(f"mern:cluster.kubeconfig: {path} is not a kube config{rest}") from None
        else:
            for kind, name, value in entries:
                merged[kind].setdefault(name, (value, path.parent.absolute()))
    return merged


class _Loader(yaml.SafeLoader):
    """A reader of YAML to which a date is text, as it is in a kube config."""


_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)


class _NoKubeConfigError(ValueError):
    """A file that is no kube config. The text says why, and is empty where there is no more to say."""


def _named_entries(config: Any) -> list[tuple[str, str, Any]]:
    """Return kind, name and value of each entry.

    Raises:
        _NoKubeConfigError: `config` is no kube config.
    """
    if not isinstance(config, Mapping) or not any(f"{kind}s" in config for kind in KINDS):
        raise _NoKubeConfigError
    if config.get("kind", "Config") != "Config":
        raise _NoKubeConfigError(f"its kind is {config['kind']}")
    entries = []
    for kind in KINDS:
        names = set()
        items = config.get(f"{kind}s") or []
        if not isinstance(items, list):
            raise _NoKubeConfigError(f"{kind}s is not a list")
        for item in items:
            name = item.get("name") or "" if isinstance(item, Mapping) else None
            if not isinstance(name, str):
                raise _NoKubeConfigError(f"{kind}s[].name is not text")
            if name in names:
                raise _NoKubeConfigError(f"it has two {kind}s with the name {name}: remove one")
            names.add(name)
            entries.append((kind, name, item.get(kind)))
    return entries


# ---- parts


def _part(model: type[Part], value: Any, at: str, faults: list[str]) -> Entry:
    """Return what kubectl reads of a part. It does not tell an empty value from none."""
    try:
        part = model.model_validate({} if value is None else value)
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False, include_context=False):
            path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in fault["loc"])
            faults.append(f"{at}{path} {TYPES.get(fault['type'], 'is missing')}")
        return {}
    dumped = part.model_dump(by_alias=True, exclude_none=True)
    return {key: value for key, value in dumped.items() if value}


def _cluster(value: Any, folder: Path, faults: list[str]) -> Entry:
    at = "clusters[].cluster"
    known = len(faults)
    cluster = _part(ClusterPart, value, at, faults)
    if len(faults) > known:
        return {}
    faults += _server_faults(cluster.get("server"), f"{at}.server")
    if (url := cluster.get("proxy-url")) and not is_proxy(url):
        faults.append(f"{at}.proxy-url is no URL that begins with http://, https:// or socks5://")
    authority = _embed(cluster, "certificate-authority", at, folder, faults)
    if authority is not None:
        if cluster.get("insecure-skip-tls-verify"):
            faults.append(
                f"{at}.insecure-skip-tls-verify does not go with a certificate-authority: remove one"
            )
        try:
            text = authority.decode("ascii", errors="ignore")
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError):
            faults.append(f"{at}.certificate-authority-data holds no certificate in PEM")
    for extension in cluster.pop("extensions", ()):
        if extension["name"] == EXEC_CONFIG:  # the others are notes of programs that write kube configs
            cluster["extensions"] = [extension]
    return cluster


def _server_faults(server: str | None, at: str) -> list[str]:
    if server is None:
        return [f"{at} is missing"]
    try:
        url = httpx.URL(server)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.userinfo:
        return [f"{at} holds credentials: they belong into users[].user"]
    if url.scheme not in ("http", "https") or not url.host:
        return [f"{at} is no URL that begins with https://"]
    return []


def _user(value: Any, folder: Path, faults: list[str]) -> Entry:
    at = "users[].user"
    known = len(faults)
    user = _part(UserPart, value, at, faults)
    if len(faults) > known:
        return {}
    if provider := user.get("auth-provider"):
        name = provider.get("name")
        mend = f", as by\n        {REMOVED[name]}" if name in REMOVED else ""
        faults.append(f"{at}.auth-provider {name} is not supported: name an exec plugin in its place{mend}")
    has_password = bool(user.get("username") or user.get("password"))
    if has_password and (user.get("token") or user.get("tokenFile")):
        faults.append(f"{at} has a token and a username or password: remove one of both")
    if not user.get("as") and (keys := [key for key in user if key.startswith("as-")]):
        faults.append(f"{at}.{keys[0]} needs {at}.as")
    _token(user, folder, at, faults)
    has_certificate = _client_certificate(user, folder, at, faults)
    if exec_ := user.get("exec"):
        faults += _exec_faults(exec_, f"{at}.exec")
        if "/" in (command := exec_.get("command") or ""):
            exec_["command"] = str(folder / command)
        if has_password or has_certificate or user.keys() & {"token", "tokenFile"}:
            del user["exec"]  # kubectl does not ask it then
    return user


def _token(user: Entry, folder: Path, at: str, faults: list[str]) -> None:
    """Name the file of a token by its whole path: it is read again when the token has been changed."""
    if path := user.pop("tokenFile", None):
        try:
            token = (folder / path).read_text().strip()
        except (OSError, ValueError) as error:
            if "token" not in user:  # as in kubectl, that serves in its place
                reason = getattr(error, "strerror", None) or "it is not text"
                faults.append(f"{at}.tokenFile: cannot read {folder / path}: {reason}")
            return
        if not token:
            faults.append(f"{at}.tokenFile: {folder / path} is empty")
        user["tokenFile"] = str(folder / path)
    else:
        token = user.get("token", "")
    if not (token.isascii() and token.isprintable()):
        faults.append(
            f"{at}.{'tokenFile' if path else 'token'} holds a line break, or a letter that no token has"
        )


def _client_certificate(user: Entry, folder: Path, at: str, faults: list[str]) -> bool:
    """Return whether the user has a client certificate, with the key that belongs to it."""
    if not user.keys() & {"client-certificate", "client-certificate-data"}:
        for key in ("client-key", "client-key-data"):
            user.pop(key, None)  # which says nothing to kubectl
        return False
    known = len(faults)
    certificate = _embed(user, "client-certificate", at, folder, faults)
    private_key = _embed(user, "client-key", at, folder, faults)
    if len(faults) > known:
        return True
    if not certificate or not private_key:
        faults.append(f"{at}.client-key is missing, or client-key-data: a client certificate needs one")
    elif b"ENCRYPTED" in private_key:
        faults.append(
            f"{at}.client-key is encrypted, which kubectl cannot read: write it without a passphrase\n"
            "        openssl pkey -in KEY -out NEW"
        )
    else:
        try:
            load_client_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, private_key)
        except (ssl.SSLError, ValueError):
            faults.append(f"{at}.client-certificate and client-key are no certificate and its key in PEM")
    return True


def _exec_faults(plugin: Entry, at: str) -> list[str]:
    faults = [f"{at}.{key} is missing" for key in ("apiVersion", "command") if not plugin.get(key)]
    version, mode = plugin.get("apiVersion"), plugin.get("interactiveMode")
    if version and version not in EXEC_VERSIONS:
        mend = (
            ", as by\n        aws eks update-kubeconfig --name CLUSTER"
            if "aws" in str(plugin.get("command"))
            else ""
        )
        faults.append(
            f"{at}.apiVersion is {version}, which kubectl does not support: have the entry made anew, with "
            f"{EXEC_VERSIONS[1]}{mend}"
        )
    if mode == "Always":
        faults.append(
            f"{at}.interactiveMode is Always, but there is no terminal that the plugin could ask at"
        )
    elif mode and mode not in ("Never", "IfAvailable"):
        faults.append(f"{at}.interactiveMode is {mode}: Never or IfAvailable")
    elif not mode and version == EXEC_VERSIONS[0]:
        faults.append(f"{at}.interactiveMode is missing, which {version} requires: Never or IfAvailable")
    return faults


def _embed(part: Entry, key: str, at: str, folder: Path, faults: list[str]) -> bytes | None:
    """Put the contents of the file `key` into `part`: its path would differ per machine. Return them."""
    path, data = part.pop(key, None), part.get(f"{key}-data")
    if path and data:
        faults.append(f"{at} has {key} and {key}-data: remove one")
    elif path:
        try:
            contents = (folder / path).read_bytes()
        except (OSError, ValueError) as error:
            faults.append(f"{at}.{key}: cannot read {folder / path}: {getattr(error, 'strerror', error)}")
            return None
        part[f"{key}-data"] = base64.b64encode(contents).decode()
        return contents
    elif data:
        try:
            return base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError):
            faults.append(f"{at}.{key}-data is not base64")
    return None
