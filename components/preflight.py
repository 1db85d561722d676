"""What a deployment to EKS takes for granted, looked at before anything is registered."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pulumi

from components.aws import AbsentError, Aws
from components.cluster import Cluster, EksCluster
from components.mern_application import alb_annotation, ingress_of
from components.release import Api, ApiError, ReleasePlan
from settings import Settings

CONTROLLERS = {
    "existing": "ingress.k8s.aws/alb",
    "auto-mode": "eks.amazonaws.com/alb",
}
"""By the mode of the load balancer controller, what the IngressClass has to name."""

POD_IDENTITY_AGENT = "eks-pod-identity-agent"

# A fault with the command that mends it, or a note that refuses nothing.
Finding = tuple[str, str]


def check(settings: Settings, cluster: Cluster, plan: ReleasePlan) -> None:
    """Look whether the cluster and the account have what the load balancer and the roles need.

    What could not be asked is a note, and never a refusal.

    Raises:
        pulumi.RunError: with everything that is missing, each with its key and what mends it.
    """
    eks, aws = cluster.eks, cluster.aws_api
    if eks is None or aws is None:
        return
    faults = []
    checks = _wanted_checks(settings, cluster.api, eks, aws, ingress_of(plan))
    # They ask different services, so all at once. Pulumi's log is for this thread alone.
    with ThreadPoolExecutor(max_workers=len(checks) or 1) as threads:
        for what, (findings, failure) in zip(checks, threads.map(_run, checks.values()), strict=True):
            for text, mend in findings:
                if mend:
                    faults.append(f"{text}\n      {mend}")
                else:
                    pulumi.log.warn(text)
            if failure:
                pulumi.log.info(f"{what} could not be checked: {failure}")
    if faults:
        count = "1 thing is" if len(faults) == 1 else f"{len(faults)} things are"
        raise pulumi.RunError(
            f"{count} missing on EKS cluster {eks.name} (mern:checks switches these checks off):\n  "
            + "\n  ".join(faults)
        )


def _wanted_checks(
    settings: Settings, api: Api, eks: EksCluster, aws: Aws, ingress: Any
) -> dict[str, Iterator[Finding]]:
    """The checks by what they are about; none has begun."""
    wanted, controller = settings.checks, settings.load_balancer_controller
    checks = {}
    if wanted.ingress_class and ingress:
        checks["the IngressClass"] = _ingress_class(controller.mode, ingress, api)
    if wanted.subnets and ingress:
        checks["the subnets for load balancers"] = _subnets(ingress, eks, aws)
    if wanted.certificates and ingress:
        checks["the certificates"] = _certificates(ingress, eks, aws)
    if wanted.identity:
        checks["how pods get their roles"] = _identity(settings, eks, aws)
    return checks


def _run(check: Iterator[Finding]) -> tuple[list[Finding], str]:
    """What a check finds, up to its failure, and the reason for that, empty where there was none."""
    findings = []
    try:
        for finding in check:
            findings.append(finding)
    except Exception as error:  # no permission, no connection
        return findings, (str(error).strip().splitlines() or [type(error).__name__])[0]
    return findings, ""


def _ingress_class(mode: str, ingress: Any, api: Api) -> Iterator[Finding]:
    name = ingress["spec"].get("ingressClassName", "")
    if mode == "auto-mode" and alb_annotation(ingress, "group.name"):
        yield (
            "mern:values ingress.group.name does nothing: EKS Auto Mode has groups in its IngressClassParams",
            "pulumi config rm --path 'mern:values.ingress.group'",
        )
    if mode not in CONTROLLERS:  # it comes with the controller; or nobody is to serve it
        return
    path = f"/apis/networking.k8s.io/v1/ingressclasses/{name}"
    needed = CONTROLLERS[mode]
    try:
        controller = api.get(path)["spec"].get("controller", "")
    except ApiError as error:
        if error.code != 404:
            raise
        controller = ""
    if controller != needed:
        what = f"is of {controller}" if controller else "is not there"
        yield (
            f"mern:loadBalancerController.mode is {mode}, but IngressClass {name} {what}, not of {needed}",
            "make an IngressClass of it, or name another: pulumi config set --path "
            "'mern:values.ingress.className' NAME",
        )
    elif mode == "existing" and not _runs_a_controller(api):
        yield (
            "mern:loadBalancerController.mode is existing, but no pod of a load balancer controller is ready",
            "kubectl get deployments -A -l app.kubernetes.io/name=aws-load-balancer-controller",
        )


def _runs_a_controller(api: Api) -> bool:
    selector = "app.kubernetes.io/name=aws-load-balancer-controller"
    found = api.get("/apis/apps/v1/deployments", labelSelector=selector).get("items") or []
    return any(item.get("status", {}).get("readyReplicas") for item in found)


def _subnets(ingress: Any, eks: EksCluster, aws: Aws) -> Iterator[Finding]:
    if alb_annotation(ingress, "subnets"):
        return
    internal = alb_annotation(ingress, "scheme") == "internal"
    tag = "kubernetes.io/role/internal-elb" if internal else "kubernetes.io/role/elb"
    subnets = aws.subnets({"vpc-id": eks.vpc_id, "tag-key": tag})
    zones = sorted({subnet["AvailabilityZone"] for subnet in subnets})
    if not subnets:
        yield (
            f"no subnet of {eks.vpc_id} has the tag {tag}: which to use is guessed from the routes",
            "",
        )
    elif len(zones) < 2:
        ids = ", ".join(subnet["SubnetId"] for subnet in subnets)
        yield (
            f"a load balancer needs subnets in two zones: of {eks.vpc_id} only {ids} in {zones[0]} have "
            f"the tag {tag}",
            f"aws ec2 create-tags --resources SUBNET --tags Key={tag},Value=1",
        )


def _certificates(ingress: Any, eks: EksCluster, aws: Aws) -> Iterator[Finding]:
    if "HTTPS" not in alb_annotation(ingress, "listen-ports"):
        return
    arns = [arn for arn in alb_annotation(ingress, "certificate-arn").split(",") if arn]
    known = [each for each in aws.certificates() if not arns or each["CertificateArn"] in arns]
    where = "mern:values ingress.tls.certificateArns" if arns else f"the account in {eks.region}"
    for host in (rule["host"] for rule in ingress["spec"].get("rules") or [] if rule.get("host")):
        found = [each for each in known if any(_covers(name, host) for name in _names(each))]
        if any(each["Status"] == "ISSUED" for each in found):
            continue
        if found:
            arn = found[0]["CertificateArn"]
            yield (
                f"the certificate for {host} ({arn}) is {found[0]['Status']}",
                f"aws acm describe-certificate --certificate-arn {arn} --region {eks.region}",
            )
        elif any(each.get("HasAdditionalSubjectAlternativeNames") for each in known):
            yield f"no certificate in {where} names {host}, but some have more names than are listed", ""
        else:
            yield (
                f"no certificate in {where} covers {host}",
                f"aws acm request-certificate --domain-name {host} --validation-method DNS "
                f"--region {eks.region}",
            )


def _names(certificate: Any) -> list[str]:
    return [certificate["DomainName"], *(certificate.get("SubjectAlternativeNameSummaries") or [])]


def _covers(name: str, host: str) -> bool:
    return name == host or (name.startswith("*.") and name[2:] == host.partition(".")[2])


def _identity(settings: Settings, eks: EksCluster, aws: Aws) -> Iterator[Finding]:
    identities = set()
    if settings.load_balancer_controller.mode == "install":
        identities.add(settings.load_balancer_controller.identity)
    if settings.python_script is not None:
        identities.add(settings.python_script.identity)
    if "irsa" in identities:
        arn = eks.oidc_provider_arn
        try:
            aws.oidc_provider(arn)
        except AbsentError:
            yield (
                f"the account does not know the cluster's OIDC issuer ({arn}): pods get no roles by irsa",
                f"eksctl utils associate-iam-oidc-provider --approve --cluster {eks.name}",
            )
    if "pod-identity" in identities and not eks.is_auto_mode:
        try:
            aws.addon(eks.name, POD_IDENTITY_AGENT)
        except AbsentError:
            yield (
                f"the cluster lacks the add-on {POD_IDENTITY_AGENT}: pods get no roles by pod-identity",
                f"aws eks create-addon --cluster-name {eks.name} --addon-name {POD_IDENTITY_AGENT}",
            )
