"""The component for programs in other languages: a provider of one resource, which Pulumi's engine starts.

The engine hands the inputs of a `Release` to this process. It plans the release and registers it as a program
in Python does, whichever language the program is in.
"""

import ast
import inspect
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from itertools import pairwise
from threading import Thread
from typing import Any, get_type_hints

import pulumi
import pulumi_kubernetes as kubernetes
import yaml
from pulumi import provider
from pulumi.output import UNKNOWN, Unknown
from pydantic import SecretStr
from pydantic.alias_generators import to_camel

from .args import ReleaseArgs
from .component import ChartRelease
from .errors import ReleaseError
from .kubernetes_api import Api, ClusterError
from .plan import plan_release
from .secrets import opened
from .values import Path, dotted, whole

PACKAGE = "chart-release"
"""The name of the package in programs, and of the plugin: `pulumi-resource-chart-release`."""
RELEASE = f"{PACKAGE}:index:Release"
SECRET_INPUTS = ("values", "kubeconfig")
"""Those that may be or hold secrets."""
INPUTS: dict[str, Any] = {
    **{
        name: hint
        for name, hint in get_type_hints(ReleaseArgs).items()
        if name != "parents" and not name.endswith("_command")
    },
    "kubeconfig": str,
}
"""The type of each input by its name in Python."""
DESCRIPTIONS = {
    "values": "The chart's values. What is a secret of Pulumi among them stays one; it has to be a text.",
    "kubeconfig": "The kube config of the cluster, as text. Its current context is used.",
}
COMMANDS = {
    "adopt_command": "set adopt to true",
    "crds_command": 'set crds to "apply"',
    "unlock_command": "set unlockRevision to {revision}",
}
"""How a user sets what messages tell to set."""

LOOK_AT_ENGINE = 0.5
"""Seconds between two looks at whether the engine is still there."""


class Release(pulumi.ComponentResource):
    """What programs register: a `ChartRelease` and its Kubernetes provider, where the program gives none."""

    status: pulumi.Output[Any]


class ReleaseProvider(provider.Provider):
    """A provider of `Release`."""

    def __init__(self, version: str) -> None:
        super().__init__(version, json.dumps(schema(version)))

    def construct(
        self,
        name: str,
        resource_type: str,
        inputs: Mapping[str, Any],
        options: pulumi.ResourceOptions | None = None,
    ) -> provider.ConstructResult:
        """Register a `Release`, once its inputs have been read."""
        release = pulumi.Output.from_input(
            _register(resource_type, name, inputs, options or pulumi.ResourceOptions())
        )
        status = release.apply(lambda it: it.status)
        return provider.ConstructResult(release.apply(lambda it: it.urn), {"status": status})


async def _register(
    kind: str, name: str, inputs: Mapping[str, Any], options: pulumi.ResourceOptions
) -> Release:
    """Plan and register the release.

    Raises:
        pulumi.InputPropertiesError: it is refused. The engine shows the text of such an error alone.
    """
    release = Release(kind, name, {}, options)
    try:
        args = await plain_inputs(inputs)
        kubeconfig = opened(args.pop("kubeconfig"))
        api = api_of(kubeconfig)
        given = (options.providers or {}).get("kubernetes")
        cluster = given or kubernetes.Provider(
            name, kubeconfig=pulumi.Output.secret(kubeconfig), opts=pulumi.ResourceOptions(parent=release)
        )
        args |= COMMANDS | {"parents": [*(await _types_of(options.parent)), kind]}
        plan = plan_release(ReleaseArgs(**args), cluster, api)
    except (pulumi.RunError, ValueError) as error:
        raise pulumi.InputPropertiesError(str(error), []) from None
    inner = ChartRelease(name, plan, pulumi.ResourceOptions(parent=release, provider=cluster))
    release.status = inner.status
    release.register_outputs({"status": inner.status})
    return release


def api_of(kubeconfig: str) -> Api:
    """Return the API server of the current context.

    Raises:
        ReleaseError: there is none. Without the parser's own words, which quote what may be a credential.
    """
    try:
        return Api(yaml.safe_load(kubeconfig))
    except (yaml.YAMLError, LookupError, TypeError):
        raise ReleaseError("kubeconfig is no kube config with a current context") from None
    except ClusterError as error:
        raise ReleaseError(f"kubeconfig: {error}") from None


async def _types_of(parent: pulumi.Resource | None) -> list[str]:
    """Return the types of a resource and its parents, the outermost first, without the stack."""
    if parent is None:
        return []
    chain = str(await parent.urn.future()).split("::")[2]
    return [] if chain == "pulumi:pulumi:Stack" else chain.split("$")


async def plain_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a `ReleaseArgs`, and the kube config, with a `SecretStr` for each secret.

    Raises:
        ReleaseError: something is not known, or cannot be kept secret; all of it together.
    """
    faults: list[str] = []

    async def plain(value: Any, path: Path, is_secret: bool = False) -> Any:
        if isinstance(value, pulumi.Output):
            known = await value.future() if await value.is_known() else UNKNOWN
            return await plain(known, path, is_secret or await value.is_secret())
        if isinstance(value, Unknown):
            faults.append(
                f"{dotted(path)} is not known before it is deployed: nobody could tell what will change. "
                "Deploy what it comes from in another stack, and read it by a StackReference"
            )
            return None
        if isinstance(value, Mapping):
            return {key: await plain(item, (*path, key), is_secret) for key, item in value.items()}
        if isinstance(value, list):
            return [await plain(item, (*path, at), is_secret) for at, item in enumerate(value)]
        if not is_secret or value is None:
            return whole(value)
        if path[0] not in SECRET_INPUTS:
            faults.append(f"{dotted(path)} is a secret: only these may be: {', '.join(SECRET_INPUTS)}")
        elif not isinstance(value, str):
            faults.append(f"{dotted(path)} is a secret and no text: it could not be hidden everywhere")
        return SecretStr(str(value))

    names = {to_camel(name): name for name in INPUTS}
    args = {names[key]: await plain(value, (key,)) for key, value in inputs.items() if value is not None}
    if faults:
        raise ReleaseError("\n".join(faults))
    return args


# ---- the schema, from the arguments of the component


def schema(version: str) -> dict[str, Any]:
    """Return what Pulumi makes the SDKs of other languages from."""
    described = _docstrings() | DESCRIPTIONS
    inputs = {
        to_camel(name): {**_type(hint), "description": described[name]} for name, hint in INPUTS.items()
    }
    inputs["kubeconfig"]["secret"] = True
    status = {**_type(Mapping[str, Any]), "description": "What Helm says of the deployed release."}
    return {
        "name": PACKAGE,
        "version": version,
        "description": "Deploys a Helm chart, and shows what it does.",
        "language": {
            name: {"respectSchemaVersion": True} for name in ("nodejs", "go", "csharp", "java", "python")
        },
        "resources": {
            RELEASE: {
                "isComponent": True,
                "description": "A Helm release, and the Kubernetes objects it consists of.",
                "properties": {"status": status},
                "required": ["status"],
                "inputProperties": inputs,
                "requiredInputs": ["chart", "kubeconfig", "name", "namespace"],
            }
        },
    }


def _type(hint: Any) -> dict[str, Any]:
    if hint is bool:
        return {"type": "boolean"}
    if hint in (int, int | None):
        return {"type": "integer"}
    if hint == Mapping[str, Any]:
        return {"type": "object", "additionalProperties": {"$ref": "pulumi.json#/Any"}}
    if hint == Sequence[str]:
        return {"type": "array", "items": {"type": "string"}}
    return {"type": "string"}


def _docstrings() -> dict[str, str]:
    """Return what stands below each argument."""
    [definition] = ast.parse(inspect.getsource(ReleaseArgs)).body
    return {
        argument.target.id: " ".join(text.value.split())
        for argument, below in pairwise(getattr(definition, "body", ()))
        for text in ast.walk(below)
        if isinstance(argument, ast.AnnAssign) and isinstance(argument.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(text, ast.Constant) and isinstance(text.value, str)
    }


def end_with_the_engine() -> None:
    """End this process when the one that has started it is gone: a killed engine does not say so."""
    engine = os.getppid()

    def watch() -> None:
        while os.getppid() == engine:
            time.sleep(LOOK_AT_ENGINE)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def main() -> None:
    """Serve the engine, whose address is the first argument."""
    end_with_the_engine()
    provider.main(ReleaseProvider(metadata.version("pulumi-chart-release")), sys.argv[1:])
