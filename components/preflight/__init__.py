"""Checks of what a deployment to EKS takes for granted, before anything is registered."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pulumi

from components.aws import AwsError
from components.cluster import Cluster
from components.preflight.certificates import certificates
from components.preflight.group import group
from components.preflight.identity import identity
from components.preflight.load_balancer import ingress_class, load_balancer
from components.preflight.look import Check, Finding, Look
from components.preflight.metrics import metrics
from components.preflight.subnets import subnets
from components.release import ClusterError, ReleasePlan
from settings import Settings

LOAD_BALANCER = "the load balancer"
"""The one check that cannot be switched off."""


def check(settings: Settings, cluster: Cluster, plan: ReleasePlan) -> None:
    """Look whether the cluster and the account have what the load balancer and the roles need, and what
    becomes of the load balancer that is there.

    What could not be asked is a note, and never a refusal.

    Raises:
        pulumi.RunError: something is in the way; the text names all of it, with the commands that mend it.
    """
    if cluster.eks is None or cluster.aws_api is None:
        return
    look = Look(
        settings=settings,
        plan=plan,
        api=cluster.api,
        eks=cluster.eks,
        aws=cluster.aws_api,
        stack=pulumi.get_stack(),
    )
    checks = _checks(look)
    faults, switch, unchecked = [], "", dict[str, list[str]]()
    # They ask different services, so all at once. Pulumi's SDK is for this thread alone.
    with ThreadPoolExecutor(max_workers=len(checks)) as threads:
        for subject, (findings, failure) in zip(checks, threads.map(_run, checks.values()), strict=True):
            for finding in findings:
                if finding.remedy:
                    faults.append(f"{finding.text}\n      {finding.remedy}")
                    switch = (
                        switch if subject == LOAD_BALANCER else " (mern:checks switches these checks off)"
                    )
                else:
                    pulumi.log.warn(finding.text)
            if failure:
                unchecked.setdefault(failure, []).append(subject)
    for reason, subjects in unchecked.items():
        pulumi.log.info(f"{', '.join(subjects)} could not be checked: {reason}")
    if faults:
        count = "1 thing is" if len(faults) == 1 else f"{len(faults)} things are"
        raise pulumi.RunError(
            f"{count} in the way on EKS cluster {cluster.eks.name}{switch}:\n  " + "\n  ".join(faults)
        )


def _checks(look: Look) -> Mapping[str, Check]:
    """Return the checks that the stack wants, by their subjects."""
    wanted = look.settings.checks
    checks = {LOAD_BALANCER: load_balancer(look)}
    if look.rendered and look.mode != "none":  # nobody is to serve it
        if wanted.ingress_class:
            checks["the IngressClass"] = ingress_class(look)
        if wanted.group:
            checks["the other Ingresses of its group"] = group(look)
        if wanted.subnets:
            checks["the subnets for load balancers"] = subnets(look)
        if wanted.certificates:
            checks["the certificates"] = certificates(look)
    if wanted.identity:
        checks["how pods get their roles"] = identity(look)
    if wanted.metrics:
        checks["the metrics for autoscalers"] = metrics(look)
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
