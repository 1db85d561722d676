"""The cluster of a stack, from its config alone: for what is looked at beside the engine."""

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml
from pulumi import automation as auto

from components.release.api import Api


def connect(stack: auto.Stack) -> tuple[Api, str]:
    """The API server of the cluster that `stack` is deployed to, and its namespace.

    Raises:
        RuntimeError: the cluster cannot be found.
    """
    config = stack.get_all_config()
    place: dict[str, Any] = json.loads(config["mern:cluster"].value)
    namespace = str(json.loads(config["mern:namespace"].value)["name"])
    if "eksClusterName" in place:
        region = json.loads(config["mern:aws"].value)["region"]
        return Api(_of_eks(place["eksClusterName"], region)), namespace
    from components.cluster import _from_file

    return Api(_from_file(Path(place["kubeconfig"]).expanduser(), place["context"])), namespace


def _of_eks(name: str, region: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kubeconfig"
        aws("eks", "update-kubeconfig", "--name", name, "--region", region, "--kubeconfig", str(file))
        loaded: dict[str, Any] = yaml.safe_load(file.read_text())
        return loaded


def aws(*arguments: str) -> str:
    """What the AWS CLI answers.

    Raises:
        RuntimeError: with its own words, where it fails.
    """
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(["aws", *arguments], capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            raise RuntimeError(f"aws {' '.join(arguments[:2])}: {done.stderr.strip()}")
        return done.stdout
    raise RuntimeError("the AWS CLI is not installed: https://aws.amazon.com/cli")
