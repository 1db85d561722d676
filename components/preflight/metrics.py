"""Whether the autoscalers get the figures that they go by."""

from components.preflight.look import Check, Finding, Look
from components.release import ApiError

METRICS_SERVER = "metrics-server"
"""The add-on of EKS; others, which serve the same API, will do as well."""
# Its description, which everybody may read who may read anything.
RESOURCE_METRICS = "/apis/metrics.k8s.io/v1beta1"


def metrics(look: Look) -> Check:
    """Check that the cluster serves the use of CPU and memory, where the chart has autoscalers."""
    autoscalers = [
        item["metadata"]["name"] for item in look.plan.objects if item["kind"] == "HorizontalPodAutoscaler"
    ]
    if not autoscalers:
        return
    names, eks = ", ".join(autoscalers), look.eks
    try:
        is_served = look.api.find(RESOURCE_METRICS) is not None
    except ApiError as error:
        if error.code != 503:
            raise
        yield Finding(
            f"the metrics server of the cluster does not answer: until it does, the autoscalers {names} "
            "leave the number of pods as it is"
        )
        return
    if not is_served:
        yield Finding(
            f"the cluster has no metrics server (API metrics.k8s.io/v1beta1): the autoscalers {names} would "
            "never change the number of pods",
            f"aws eks create-addon --cluster-name {eks.name} --addon-name {METRICS_SERVER} "
            f"--region {eks.region}",
        )
