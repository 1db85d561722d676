"""A stack of Pulumi: opened, its config read, its secrets to mask, and the cluster that it is deployed to."""

import contextlib
import json
import os
import re
import shlex
from pathlib import Path

import pulumi
from pulumi import automation as auto

from components.release import ChartError, chart
from components.release.kubernetes_api import Api, ClusterError
from components.release.secrets import Secrets
from components.release.values import leaves
from settings import IMAGE_TAG_VARIABLE, IMAGES_VARIABLE, AwsSettings, ClusterSettings

PROJECT = Path(__file__).parent.parent


class _Workspace(auto.LocalWorkspace):
    """The project, with the stack that `pulumi` takes where none is named left as it is."""

    def select_stack(self, stack_name: str) -> None:
        """Only look whether it is there."""
        command = ["stack", "--show-name", "--stack", stack_name]
        self.pulumi_command.run(command, self.work_dir, self.env_vars)


def open_stack(name: str) -> auto.Stack:
    """Open the stack `name` of the backend that PULUMI_BACKEND_URL or `pulumi login` names.

    Raises:
        CommandError: the backend is not reached, or has no such stack.
        FileNotFoundError: there is no `pulumi` on PATH.
    """
    return auto.Stack.select(name, _Workspace(work_dir=str(PROJECT)))


def secrets_in(config: auto.ConfigMap, name: str = "") -> Secrets:
    """Return the secrets of the config of stack `name`, to mask them wherever they are quoted."""
    secrets: set[str] = set()
    public = [
        name,
        os.environ.get(IMAGE_TAG_VARIABLE, ""),
        os.environ.get(IMAGES_VARIABLE, ""),
        *(item.value for item in config.values() if not item.secret),
    ]
    with contextlib.suppress(ChartError):  # the program says what is wrong with the chart
        public += chart.load(str(PROJECT / "chart")).public_texts({})
    for item in config.values():
        if item.secret:
            secrets.add(item.value)
            with contextlib.suppress(ValueError):
                inner = leaves(json.loads(item.value), lists=True)
                secrets.update(leaf for _, leaf in inner if isinstance(leaf, str))
    return Secrets(secrets, "\n".join(public))


def connect(name: str, config: auto.ConfigMap) -> tuple[Api, str]:
    """Return the API server of the cluster that stack `name` is deployed to, and its namespace there.

    Raises:
        ClusterError: the config names no cluster or no namespace, or the cluster is not found.
    """
    from components.cluster import kube_config

    try:
        namespace = str(json.loads(config["mern:namespace"].value)["name"])
        place = ClusterSettings.model_validate(json.loads(config["mern:cluster"].value))
        account = None
        if place.eks_cluster_name is not None:
            account = AwsSettings.model_validate(json.loads(config["mern:aws"].value))
    except (KeyError, TypeError, ValueError):
        raise ClusterError(
            f"the config of stack {name} names no cluster and namespace; this shows its faults:\n"
            f"    pulumi preview --stack {name}"
        ) from None
    try:
        return Api(kube_config(place, account, name)), namespace
    except pulumi.RunError as error:
        raise ClusterError(f"the cluster of stack {name} is not found: {error}") from None


def stderr_of(error: auto.errors.CommandError) -> str:
    """Return what the command wrote to standard error, of all that the SDK's message holds."""
    match = re.search(r"^ ?stderr: (.*)", str(error), re.DOTALL | re.MULTILINE)
    text = (match[1] if match else str(error)).strip().removeprefix("error: ")
    if missing := re.fullmatch(r"no stack named '(.+)' found", text):
        text += f"\n    pulumi stack init {shlex.quote(missing[1])}"
    return text
