"""What a deployment to EKS takes for granted, looked at before anything is registered."""

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pulumi
import pulumi_aws as aws

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

ABSENT = (
    "couldn't find",
    "could not find",
    "NoSuchEntity",
    "ResourceNotFound",
    "no matching",
    "empty result",
)
"""In the AWS provider's words, something that is not there."""

KEY_TYPES = "RSA_1024,RSA_2048,RSA_3072,RSA_4096,EC_prime256v1,EC_secp384r1,EC_secp521r1"
"""Without a list, AWS answers with RSA of up to 2048 bits alone."""

# A fault with the command that mends it, or a note that refuses nothing.
Finding = tuple[str, str]


class _AbsentError(Exception):
    """AWS knows no such thing."""


def check(settings: Settings, cluster: Cluster, plan: ReleasePlan) -> None:
    """Look whether the cluster and the account have what the load balancer and the roles need.

    What could not be asked is a note, and never a refusal.

    Raises:
        pulumi.RunError: with everything that is missing, each with its key and what mends it.
    """
    eks = cluster.eks
    if eks is None:
        return
    ingress = ingress_of(plan)
    wanted = settings.checks
    opts = pulumi.InvokeOptions(provider=cluster.aws_provider)
    checks: list[tuple[bool, str, Callable[[], Iterator[Finding]]]] = [
        (
            wanted.ingress_class and bool(ingress),
            "the IngressClass",
            lambda: _ingress_class(settings.load_balancer_controller.mode, ingress, cluster.api),
        ),
        (
            wanted.subnets and bool(ingress),
            "the subnets for load balancers",
            lambda: _subnets(ingress, eks, opts),
        ),
        (
            wanted.certificates and bool(ingress),
            "the certificates",
            lambda: _certificates(ingress, eks),
        ),
        (wanted.identity, "how pods get their roles", lambda: _identity(settings, eks, opts)),
    ]
    faults = []
    for is_wanted, what, found in checks:
        if not is_wanted:
            continue
        try:
            for text, mend in found():
                if mend:
                    faults.append(f"{text}\n      {mend}")
                else:
                    pulumi.log.warn(text)
        except Exception as error:  # no permission, no connection
            pulumi.log.info(f"{what} could not be checked: {_in_short(error)}")
    if faults:
        count = "1 thing is" if len(faults) == 1 else f"{len(faults)} things are"
        raise pulumi.RunError(
            f"{count} missing on EKS cluster {eks.name} (mern:checks switches these checks off):\n  "
            + "\n  ".join(faults)
        )


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


def _subnets(ingress: Any, eks: EksCluster, opts: pulumi.InvokeOptions) -> Iterator[Finding]:
    if alb_annotation(ingress, "subnets"):
        return
    internal = alb_annotation(ingress, "scheme") == "internal"
    tag = "kubernetes.io/role/internal-elb" if internal else "kubernetes.io/role/elb"
    filters = [
        aws.ec2.GetSubnetsFilterArgs(name="vpc-id", values=[eks.vpc_id]),
        aws.ec2.GetSubnetsFilterArgs(name="tag-key", values=[tag]),
    ]
    try:
        ids = _asked(lambda: aws.ec2.get_subnets(filters=filters, opts=opts)).ids
    except _AbsentError:
        ids = []
    zones = set()
    for subnet in ids:
        zones.add(aws.ec2.get_subnet(id=subnet, opts=opts).availability_zone)
        if len(zones) == 2:
            return
    if not ids:
        yield (
            f"no subnet of {eks.vpc_id} has the tag {tag}: which to use is guessed from the routes",
            "",
        )
    else:
        yield (
            f"a load balancer needs subnets in two zones: of {eks.vpc_id} only {', '.join(ids)} in "
            f"{', '.join(zones)} have the tag {tag}",
            f"aws ec2 create-tags --resources SUBNET --tags Key={tag},Value=1",
        )


def _certificates(ingress: Any, eks: EksCluster) -> Iterator[Finding]:
    if "HTTPS" not in alb_annotation(ingress, "listen-ports"):
        return
    arns = [arn for arn in alb_annotation(ingress, "certificate-arn").split(",") if arn]
    known = [each for each in _listed_certificates(eks.region) if not arns or each["CertificateArn"] in arns]
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


def _listed_certificates(region: str) -> list[dict[str, Any]]:
    # Not by the provider: its function waits a minute for a name that is not there, and looks at no
    # alternative names. The AWS CLI is needed anyway, for tokens of the cluster.
    command = ["aws", "acm", "list-certificates", "--region", region, "--output", "json"]
    command += ["--includes", f"keyTypes={KEY_TYPES}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"aws ended with {done.returncode}")
    found: list[dict[str, Any]] = json.loads(done.stdout)["CertificateSummaryList"]
    return found


def _names(certificate: Any) -> list[str]:
    return [certificate["DomainName"], *(certificate.get("SubjectAlternativeNameSummaries") or [])]


def _covers(name: str, host: str) -> bool:
    return name == host or (name.startswith("*.") and name[2:] == host.partition(".")[2])


def _identity(settings: Settings, eks: EksCluster, opts: pulumi.InvokeOptions) -> Iterator[Finding]:
    identities = set()
    if settings.load_balancer_controller.mode == "install":
        identities.add(settings.load_balancer_controller.identity)
    if settings.python_script is not None:
        identities.add(settings.python_script.identity)
    if "irsa" in identities:
        arn = eks.oidc_provider_arn
        try:
            _asked(lambda: aws.iam.get_open_id_connect_provider(arn=arn, opts=opts))
        except _AbsentError:
            yield (
                f"the account does not know the cluster's OIDC issuer ({arn}): pods get no roles by irsa",
                f"eksctl utils associate-iam-oidc-provider --approve --cluster {eks.name}",
            )
    if "pod-identity" in identities and not eks.is_auto_mode:
        try:
            _asked(lambda: aws.eks.get_addon(cluster_name=eks.name, addon_name=POD_IDENTITY_AGENT, opts=opts))
        except _AbsentError:
            yield (
                f"the cluster lacks the add-on {POD_IDENTITY_AGENT}: pods get no roles by pod-identity",
                f"aws eks create-addon --cluster-name {eks.name} --addon-name {POD_IDENTITY_AGENT}",
            )


def _asked(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except Exception as error:  # the SDK raises a bare Exception for every failed call
        if any(word in str(error) for word in ABSENT):
            raise _AbsentError from None
        raise


def _in_short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
