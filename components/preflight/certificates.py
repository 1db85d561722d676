"""Whether the load balancer gets the certificates that HTTPS needs."""

from components.aws import Arn, Description
from components.ingress import Ingress
from components.preflight.look import Check, Finding, Look, quota

MOST_CERTIFICATES = 26
"""Of a load balancer, unless AWS raises the account's quota: a default one and 25 more."""


def certificates(look: Look) -> Check:
    """Check the certificates that the Ingress or its class names, or else those that the controller finds."""
    ingress, region = look.ingress, look.eks.region
    if ingress is None or not ingress.is_https:
        return
    arns = ingress.certificate_arns
    place = _place(ingress) if arns else f"the account in {region}"
    listed = [item for item in look.aws.certificates() if not arns or item["CertificateArn"] in arns]
    known = {item["CertificateArn"] for item in listed}
    # The load balancer takes those of IAM as well, which ACM does not list.
    of_iam = [arn for arn in arns if ":iam:" in arn]
    missing = [arn for arn in arns if arn not in known and arn not in of_iam]
    for arn in missing:
        yield Finding(
            f"{place} names certificate {arn}, {_why_not(arn, look)}",
            f"aws acm list-certificates --region {region}",
        )
    for item in listed if arns else ():
        if item["Status"] not in ("ISSUED", "EXPIRED"):  # an expired one does no harm beside another
            yield _not_issued(item, ", ".join(_names(item)), region)
    for host in ingress.hosts:
        covering = [item for item in listed if any(_covers(name, host) for name in _names(item))]
        if any(item["Status"] == "ISSUED" for item in covering):
            continue
        if covering:
            if not arns or covering[0]["Status"] == "EXPIRED":
                yield _not_issued(covering[0], host, region)
        elif of_iam:
            yield Finding(f"whether {', '.join(of_iam)} covers {host} was not checked: ACM does not list it")
        elif any(item.get("HasAdditionalSubjectAlternativeNames") for item in listed):
            yield Finding(f"no certificate in {place} names {host}, but some have more names than are listed")
        elif not missing:
            yield Finding(
                f"no certificate in {place} covers {host}",
                f"aws acm request-certificate --domain-name '{host}' --validation-method DNS "
                f"--region {region}",
            )
    count = len(arns or [item for item in listed if _is_taken(item, ingress)])
    if count > MOST_CERTIFICATES:
        yield Finding(
            f"{place} has {count} certificates for the load balancer: AWS allows {MOST_CERTIFICATES}"
            f"{quota(region)}"
        )


def _place(ingress: Ingress) -> str:
    of_class = ingress.params.get("certificateArn") or ingress.params.get("certificateARNs")
    return f"IngressClass {ingress.class_name}" if of_class else "mern:values ingress.tls.certificateArns"


def _why_not(arn: str, look: Look) -> str:
    """Return why a certificate is not among those of ACM."""
    mine = Arn.parse(look.eks.arn)
    try:
        its = Arn.parse(arn)
    except ValueError:
        return "which is no ARN"
    if (its.region, its.account_id) != (mine.region, mine.account_id):
        return (
            f"of account {its.account_id} in {its.region}: the load balancer takes certificates of its own, "
            f"{mine.account_id} in {mine.region}"
        )
    return f"which the account does not have in {mine.region}"


def _not_issued(item: Description, names: str, region: str) -> Finding:
    arn = item["CertificateArn"]
    return Finding(
        f"the certificate for {names} ({arn}) is {item['Status']}",
        f"aws acm describe-certificate --certificate-arn {arn} --region {region}",
    )


def _is_taken(item: Description, ingress: Ingress) -> bool:
    """Return whether the controller finds a certificate for one of the hosts: it takes all that fit."""
    fits = any(_covers(name, host) for name in _names(item) for host in ingress.hosts)
    return item["Status"] == "ISSUED" and fits


def _names(certificate: Description) -> list[str]:
    """Return the names that ACM lists of a certificate: the first ones."""
    others = certificate.get("SubjectAlternativeNameSummaries") or []
    return list(dict.fromkeys([certificate["DomainName"], *others]))


def _covers(name: str, host: str) -> bool:
    """Return whether a certificate for `name`, maybe a wildcard, is one for `host`."""
    return name == host or (name.startswith("*.") and name[2:] == host.partition(".")[2])
