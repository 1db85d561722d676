"""A stack of Pulumi: opened, its config read, its secrets to mask, and the cluster that it is deployed to."""

import contextlib
import json
import re
from pathlib import Path

import pulumi
from pulumi import automation as auto

from components.release.api import Api
from components.release.values import leaves
from settings import AwsSettings, ClusterSettings

PROJECT = Path(__file__).parent.parent


def open_stack(name: str) -> auto.Stack:
    """Open the stack `name` of the backend that PULUMI_BACKEND_URL or `pulumi login` names.

    Raises:
        CommandError: the backend is not reached, or has no such stack.
        FileNotFoundError: there is no `pulumi` on PATH.
    """
    return auto.select_stack(name, work_dir=str(PROJECT))


def secrets_in(config: auto.ConfigMap) -> list[str]:
    """Return the texts of a config's secrets, the longest first, to mask them wherever they are quoted."""
    secrets: set[str] = set()
    for item in config.values():
        if item.secret:
            secrets.add(item.value)
            with contextlib.suppress(ValueError):
                inner = leaves(json.loads(item.value), lists=True)
                secrets.update(leaf for _, leaf in inner if isinstance(leaf, str))
    return sorted(secrets, key=len, reverse=True)


def connect(config: auto.ConfigMap) -> tuple[Api, str]:
    """Return the API server of the cluster that a stack is deployed to, and its namespace there.

    Args:
        config: of the stack.

    Raises:
        RuntimeError: the cluster cannot be found.
        KeyError, TypeError, ValueError: the config names no cluster or no namespace.
    """
    from components.cluster import kube_config

    namespace = str(json.loads(config["mern:namespace"].value)["name"])
    place = ClusterSettings.model_validate(json.loads(config["mern:cluster"].value))
    account = None
    if place.eks_cluster_name is not None:
        account = AwsSettings.model_validate(json.loads(config["mern:aws"].value))
    try:
        return Api(kube_config(place, account)), namespace
    except pulumi.RunError as error:
        raise RuntimeError(str(error)) from None


def stderr_of(error: auto.errors.CommandError) -> str:
    """Return what the command wrote to standard error, of all that the SDK's message holds."""
    match = re.search(r"^ ?stderr: (.*)", str(error), re.DOTALL | re.MULTILINE)
    text = (match[1] if match else str(error)).strip().removeprefix("error: ")
    if missing := re.fullmatch(r"no stack named '(.+)' found", text):
        text += f"\n    pulumi stack init {missing[1]}"
    return text
