"""Checks of what a deployment to EKS takes for granted, before anything is registered."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pulumi

from components.aws import AbsentError, Arn, Aws, AwsError, Description
from components.cluster import Cluster, EksCluster
from components.ingress import Ingress, controller_of
from components.release import Api, ClusterError, ReleasePlan
from settings import Settings

POD_IDENTITY_AGENT = "eks-pod-identity-agent"
CONTROLLER_LABEL = "app.kubernetes.io/name=aws-load-balancer-controller"


class Finding(NamedTuple):
    """A fault that a check has found, or something to warn of."""

    text: str
    remedy: str = ""
    """A command that mends it; with one, the deployment is refused, and without it is warned of."""


Check = Iterator[Finding]
"""A check that has begun to work when its first finding is asked for."""


def check(settings: Settings, cluster: Cluster, plan: ReleasePlan) -> None:
    """Look whether the cluster and the account have what the load balancer and the roles need.

    What could not be asked is a note, and never a refusal.

    Raises:
        pulumi.RunError: something is missing; the text names all of it, with the commands that mend it.
    """
    eks, aws = cluster.eks, cluster.aws_api
    if eks is None or aws is None:
        return
    checks = _checks(settings, cluster.api, eks, aws, Ingress.rendered(plan.objects))
    faults = []
    # They ask different services, so all at once. Pulumi's SDK is for this thread alone.
    with ThreadPoolExecutor(max_workers=len(checks) or 1) as threads:
        for subject, (findings, failure) in zip(checks, threads.map(_run, checks.values()), strict=True):
            for finding in findings:
                if finding.remedy:
                    faults.append(f"{finding.text}\n      {finding.remedy}")
                else:
                    pulumi.log.warn(finding.text)
            if failure:
                pulumi.log.info(f"{subject} could not be checked: {failure}")
    if faults:
        count = "1 thing is" if len(faults) == 1 else f"{len(faults)} things are"
        raise pulumi.RunError(
            f"{count} missing on EKS cluster {eks.name} (mern:checks switches these checks off):\n  "
            + "\n  ".join(faults)
        )


def _checks(
    settings: Settings, api: Api, eks: EksCluster, aws: Aws, ingress: Ingress | None
) -> Mapping[str, Check]:
    """Return the checks that the stack wants, by their subjects."""
    wanted = settings.checks
    checks = {}
    if wanted.ingress_class and ingress:
        mode = settings.load_balancer_controller.mode
        checks["the IngressClass"] = _ingress_class(mode, ingress, api, pulumi.get_stack())
    if wanted.subnets and ingress:
        checks["the subnets for load balancers"] = _subnets(ingress, eks, aws)
    if wanted.certificates and ingress:
        checks["the certificates"] = _certificates(ingress, eks, aws)
    if wanted.identity:
        checks["how pods get their roles"] = _identity(settings, eks, aws)
    return checks


def _run(check: Check) -> tuple[list[Finding], str]:
    """Return the findings of a check up to its failure, and the reason for that; empty: it did not fail."""
    findings = []
    try:
        for finding in check:
            findings.append(finding)
    except (ClusterError, AwsError) as error:
        return findings, str(error)
    return findings, ""


def _ingress_class(mode: str, ingress: Ingress, api: Api, stack: str) -> Check:
    if mode == "auto-mode" and ingress.group:
        yield Finding(
            "mern:values ingress.group.name does nothing: EKS Auto Mode has groups in its IngressClassParams",
            f"pulumi config rm --path 'mern:values.ingress.group' --stack {stack}",
        )
    if mode not in ("existing", "auto-mode"):  # it comes with the controller; or nobody is to serve it
        return
    needed = controller_of(mode).ingress_class_controller
    ingress_class = api.find(f"/apis/networking.k8s.io/v1/ingressclasses/{ingress.class_name}") or {}
    actual = ingress_class.get("spec", {}).get("controller", "")
    if actual != needed:
        state = f"is of {actual}" if actual else "is not there"
        yield Finding(
            f"mern:loadBalancerController.mode is {mode}, but IngressClass {ingress.class_name} {state}, "
            f"not of {needed}",
            "make an IngressClass of it, or name another: pulumi config set --path "
            f"'mern:values.ingress.className' NAME --stack {stack}",
        )
    elif mode == "existing" and not _runs_a_controller(api):
        yield Finding(
            "mern:loadBalancerController.mode is existing, but no pod of a load balancer controller is ready",
            f"kubectl get deployments -A -l {CONTROLLER_LABEL}",
        )


def _runs_a_controller(api: Api) -> bool:
    deployments = api.items("/apis/apps/v1/deployments", labelSelector=CONTROLLER_LABEL)
    return any(item.get("status", {}).get("readyReplicas") for item in deployments)


def _subnets(ingress: Ingress, eks: EksCluster, aws: Aws) -> Check:
    if ingress.subnets:
        return
    tag = ingress.subnet_tag
    subnets = aws.subnets({"vpc-id": eks.vpc_id, "tag-key": tag})
    zones = sorted({subnet["AvailabilityZone"] for subnet in subnets})
    if not subnets:
        yield Finding(
            f"no subnet of {eks.vpc_id} has the tag {tag}: the load balancer controller goes by their routes"
        )
    elif len(zones) < 2:
        ids = ", ".join(subnet["SubnetId"] for subnet in subnets)
        yield Finding(
            f"a load balancer needs subnets in two zones: of {eks.vpc_id} only {ids} in {zones[0]} have "
            f"the tag {tag}",
            f"aws ec2 create-tags --resources SUBNET --tags Key={tag},Value=1 --region {eks.region}",
        )


def _certificates(ingress: Ingress, eks: EksCluster, aws: Aws) -> Check:
    if not ingress.is_https:
        return
    arns = ingress.certificate_arns
    listed = [item for item in aws.certificates() if not arns or item["CertificateArn"] in arns]
    # The load balancer takes those of IAM as well, which ACM does not list.
    of_iam = [arn for arn in arns if Arn.parse(arn).service == "iam"]
    place = "mern:values ingress.tls.certificateArns" if arns else f"the account in {eks.region}"
    for host in ingress.hosts:
        covering = [item for item in listed if any(_covers(name, host) for name in _names(item))]
        if any(item["Status"] == "ISSUED" for item in covering):
            continue
        if covering:
            arn = covering[0]["CertificateArn"]
            yield Finding(
                f"the certificate for {host} ({arn}) is {covering[0]['Status']}",
                f"aws acm describe-certificate --certificate-arn {arn} --region {eks.region}",
            )
        elif of_iam:
            yield Finding(f"whether {', '.join(of_iam)} covers {host} was not checked: ACM does not list it")
        elif any(item.get("HasAdditionalSubjectAlternativeNames") for item in listed):
            yield Finding(f"no certificate in {place} names {host}, but some have more names than are listed")
        else:
            yield Finding(
                f"no certificate in {place} covers {host}",
                f"aws acm request-certificate --domain-name {host} --validation-method DNS "
                f"--region {eks.region}",
            )


def _names(certificate: Description) -> list[str]:
    """Return the names that ACM lists of a certificate: the first ones."""
    return [certificate["DomainName"], *(certificate.get("SubjectAlternativeNameSummaries") or [])]


def _covers(name: str, host: str) -> bool:
    """Return whether a certificate for `name`, maybe a wildcard, is one for `host`."""
    return name == host or (name.startswith("*.") and name[2:] == host.partition(".")[2])


def _identity(settings: Settings, eks: EksCluster, aws: Aws) -> Check:
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
            yield Finding(
                f"the account does not know the cluster's OIDC issuer ({arn}): pods get no roles by irsa",
                f"eksctl utils associate-iam-oidc-provider --approve --cluster {eks.name} "
                f"--region {eks.region}",
            )
    if "pod-identity" in identities and not eks.is_auto_mode:
        try:
            aws.addon(eks.name, POD_IDENTITY_AGENT)
        except AbsentError:
            yield Finding(
                f"the cluster lacks the add-on {POD_IDENTITY_AGENT}: pods get no roles by pod-identity",
                f"aws eks create-addon --cluster-name {eks.name} --addon-name {POD_IDENTITY_AGENT} "
                f"--region {eks.region}",
            )
