"""The cluster of a stack, from its config alone: for what is looked at beside the engine."""

import json

import pulumi
from pulumi import automation as auto

from components.release.api import Api
from settings import AwsSettings, ClusterSettings


def connect(config: auto.ConfigMap) -> tuple[Api, str]:
    """Return the API server of the cluster that a stack is deployed to, and its namespace there.

    Args:
        config: of the stack.

    Raises:
        RuntimeError: the cluster cannot be found.
        KeyError, TypeError, ValueError: the stack's config names no cluster or no namespace.
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
