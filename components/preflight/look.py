"""What the checks look at, and what they find."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from components.aws import Aws
from components.cluster import EksCluster
from components.ingress import Controller, Ingress, controller_of, params_of_class
from components.load_balancer_controller import controllers
from components.release import Api, ClusterError, ReleasePlan
from components.release.manifest import Object
from components.release.values import ABSENT, get
from settings import Settings


class Finding(NamedTuple):
    """A fault that a check has found, or something to warn of."""

    text: str
    remedy: str = ""
    """Commands that mend it; with some, the deployment is refused, and without it is warned of."""


Check = Iterator[Finding]
"""A check that has begun to work when its first finding is asked for."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A planned deployment, the cluster and the account. What is in the cluster is read when a check first
    asks for it; ClusterError is raised where it cannot be read."""

    settings: Settings
    plan: ReleasePlan
    api: Api
    eks: EksCluster
    aws: Aws
    stack: str

    @property
    def mode(self) -> str:
        return self.settings.load_balancer_controller.mode

    @property
    def controller(self) -> Controller:
        return controller_of(self.mode)

    @cached_property
    def rendered(self) -> Ingress | None:
        """The chart's Ingress, as it is rendered."""
        return Ingress.rendered(self.plan.objects)

    @cached_property
    def ingress(self) -> Ingress | None:
        """The chart's Ingress, with what its class says."""
        return self.rendered and replace(self.rendered, params=(self.class_params or {}).get("spec") or {})

    @cached_property
    def live(self) -> Ingress | None:
        """The release's Ingress as it is in the cluster, None where there is none."""
        live = Ingress.live(self.api, self.plan.args.namespace, self.plan.args.name)
        if live and self.ingress and live.class_name == self.ingress.class_name:
            return replace(live, params=self.ingress.params)
        return live

    @cached_property
    def is_made(self) -> bool:
        """Whether the load balancer is there, and stays."""
        live, ingress = self.live, self.ingress
        return bool(
            live
            and ingress
            and live.address
            and (live.class_name, live.scheme, live.group)
            == (ingress.class_name, ingress.scheme, ingress.group)
        )

    @cached_property
    def ingress_class(self) -> Object | None:
        """The IngressClass that the chart's Ingress names."""
        name = self.rendered.class_name if self.rendered else ""
        return self.api.find(f"/apis/networking.k8s.io/v1/ingressclasses/{name}")

    @cached_property
    def class_params(self) -> Object | None:
        """The IngressClassParams that this class names, None where the controller knows none."""
        return params_of_class(self.api, self.ingress_class, self.controller)

    @cached_property
    def deployments(self) -> list[Object]:
        """The Deployments of AWS's controller, whoever has made them."""
        return controllers(self.api)

    @cached_property
    def container(self) -> Object:
        """The container of a controller that somebody else has installed, an empty one where it cannot be
        read."""
        try:
            deployments = self.deployments if self.mode == "existing" else []
        except ClusterError:
            deployments = []
        container = get(deployments, (0, "spec", "template", "spec", "containers", 0))
        return {} if container is ABSENT else container

    @property
    def flags(self) -> Mapping[str, str]:
        """The flags of such a controller."""
        pairs = [text.lstrip("-").partition("=") for text in self.container.get("args") or []]
        return {name: value for name, _, value in pairs}

    @property
    def gates(self) -> Mapping[str, str]:
        """The feature gates of such a controller."""
        pairs = [text.partition("=") for text in self.flags.get("feature-gates", "").split(",")]
        return {name.strip(): value.strip().lower() for name, _, value in pairs}

    @property
    def version(self) -> tuple[int, ...]:
        """The version of such a controller, by its image's tag; empty where that says none."""
        tag = re.search(r":v(\d+)\.(\d+)\.(\d+)", self.container.get("image", ""))
        return tuple(map(int, tag.groups())) if tag else ()


def quota(region: str) -> str:
    """Return the end of a sentence on a limit of AWS that an account can have raised."""
    return (
        " unless it has raised the quota: aws service-quotas list-service-quotas "
        f"--service-code elasticloadbalancing --region {region}"
    )
