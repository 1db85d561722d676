"""The controller's chart: its version, the permissions and CRDs that belong to that, and its values."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi

from components.cluster import EksCluster
from components.release import ChartError, chart, chart_source
from components.release.values import ABSENT, get, merged
from components.service_account_role import ROLE_ANNOTATION
from settings import Identity

# One unit: a version, the permissions it needs as its makers publish them, and the CRDs of its chart.
CHART = "aws-load-balancer-controller"
VERSION = "3.5.0"
POLICY = Path(__file__).with_name("policy.json")
CRDS = (
    "albtargetcontrolconfigs.elbv2.k8s.aws",
    "globalaccelerators.aga.k8s.aws",
    "ingressclassparams.elbv2.k8s.aws",
    "listenerruleconfigurations.gateway.k8s.aws",
    "loadbalancerconfigurations.gateway.k8s.aws",
    "targetgroupbindings.elbv2.k8s.aws",
    "targetgroupconfigurations.gateway.k8s.aws",
)
CONTROLLER_GEN = (0, 19, 0)
"""The version of the program that has made these CRDs, as they say in an annotation."""
# Where that list of permissions holds; the isolated partitions have lists of their own.
PARTITIONS = ("aws", "aws-cn", "aws-us-gov", "aws-eusc")

NAMESPACE = "kube-system"
# What the role trusts, and what the chart creates.
SERVICE_ACCOUNT = "aws-load-balancer-controller"
OWNER = "mern/installed-by"
"""Annotation of the ServiceAccount: the stack that has installed the controller. On a CRD somebody sets it
who gives that to a stack."""
INGRESS_CLASS = "alb"
"""What the chart creates."""


def pull(repository: str) -> str:
    """Have the pinned chart in the project; return its path.

    Raises:
        pulumi.RunError: the chart cannot be had, or it lacks CRDs of the pinned version.
    """
    mend = (
        "\n      pulumi config set --path 'mern:loadBalancerController.chartRepository' URL --stack "
        f"{pulumi.get_stack()}"
    )
    try:
        path, _ = chart_source.pull(CHART, repository, VERSION)
    except ChartError as error:
        raise pulumi.RunError(f"mern:loadBalancerController.chartRepository: {error}{mend}") from None
    there = {crd["metadata"]["name"] for crd in chart.load(path).crds}
    if missing := [name for name in CRDS if name not in there]:
        raise pulumi.RunError(
            f"mern:loadBalancerController.chartRepository: {CHART} {VERSION} of {repository} is not the one "
            f"that this program is made for: it lacks the CRDs {', '.join(missing)}{mend}"
        )
    return path


def permissions(partition: str) -> dict[str, Any]:
    """Return the IAM policy of the controller, for one of `PARTITIONS`."""
    text = POLICY.read_text().replace("arn:aws:", f"arn:{partition}:")
    policy: dict[str, Any] = json.loads(text)
    return policy


def chart_values(
    cluster: EksCluster, identity: Identity, role: str, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of the controller's chart.

    Args:
        cluster: the cluster.
        identity: how the pods get their role.
        role: its ARN.
        overrides: of the stack.
    """
    annotations = {OWNER: owner()} | ({ROLE_ANNOTATION: role} if identity == "irsa" else {})
    values: dict[str, Any] = {
        "clusterName": cluster.name,
        # Left out, the controller asks the node's metadata service, which pods often cannot reach.
        "region": cluster.region,
        "vpcId": cluster.vpc_id,
        "serviceAccount": {"create": True, "name": SERVICE_ACCOUNT, "annotations": annotations},
        "replicaCount": 2,
        "podDisruptionBudget": {"maxUnavailable": 1},
        # A pod keeps the identity that it was started with: with another one they have to start anew.
        "podAnnotations": {"mern/identity": f"{identity} {role}"},
        # The first listing of all pods takes far more memory than the controller needs later.
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"memory": "1Gi"},
        },
        # Otherwise each upgrade makes a new certificate, and webhooks fail until the pods have it.
        "keepTLSSecret": True,
        # For Services of type LoadBalancer, of which there are none here. While no pod of the
        # controller is ready, it stops the creation of every Service in the cluster.
        "enableServiceMutatorWebhook": False,
        # By default a pod that is made while no pod of the controller is ready gets no readiness gate: a
        # rollout then ends the old pods, and no target takes their place. With this, the old ones stay.
        "podMutatorWebhookConfig": {"failurePolicy": "Fail"},
        # No load balancer sends to the pods of Jobs, and they need not wait for its controller.
        "objectSelector": {
            "matchExpressions": [{"key": "batch.kubernetes.io/job-name", "operator": "DoesNotExist"}]
        },
    }
    if get(overrides, ("resources", "limits", "memory")) is ABSENT:
        values["env"] = {"GOMEMLIMIT": "900MiB"}  # of that limit
    return merged(values, overrides)


def owner() -> str:
    """Return what this stack writes as the owner."""
    return f"{pulumi.get_project()}/{pulumi.get_stack()}"
