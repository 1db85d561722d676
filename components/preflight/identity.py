"""Whether pods get IAM roles in the way that the stack's config names."""

from components.aws import AbsentError
from components.preflight.look import Check, Finding, Look

POD_IDENTITY_AGENT = "eks-pod-identity-agent"


def identity(look: Look) -> Check:
    """Check the OIDC issuer of the cluster, or the agent of Pod Identity."""
    settings, eks = look.settings, look.eks
    identities = set()
    if look.mode == "install":
        identities.add(settings.load_balancer_controller.identity)
    if settings.python_script is not None:
        identities.add(settings.python_script.identity)
    if "irsa" in identities:
        arn = eks.oidc_provider_arn
        try:
            look.aws.oidc_provider(arn)
        except AbsentError:
            yield Finding(
                f"the account does not know the cluster's OIDC issuer ({arn}): pods get no roles by irsa",
                f"eksctl utils associate-iam-oidc-provider --approve --cluster {eks.name} "
                f"--region {eks.region}",
            )
    if "pod-identity" in identities and not eks.is_auto_mode:
        try:
            look.aws.addon(eks.name, POD_IDENTITY_AGENT)
        except AbsentError:
            yield Finding(
                f"the cluster lacks the add-on {POD_IDENTITY_AGENT}: pods get no roles by pod-identity",
                f"aws eks create-addon --cluster-name {eks.name} --addon-name {POD_IDENTITY_AGENT} "
                f"--region {eks.region}",
            )
