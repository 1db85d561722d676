"""Whether the controller finds subnets for the load balancer, by the rules of its own source."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from components.aws import Description
from components.ingress import Ingress
from components.preflight.look import Check, Finding, Look

LEAST_ADDRESSES = 8
"""Free addresses in a subnet, below which AWS makes no load balancer in it."""
OF_CLUSTERS = "kubernetes.io/cluster"
"""How the tags begin that say which clusters a subnet is for."""
BY_ROUTES_SINCE = (2, 12, 1)
"""The controller's version that looks for subnets by their routes where none has the tag."""


def subnets(look: Look) -> Check:
    """Check the subnets that the Ingress or its class names, or else those that the controller looks for."""
    ingress = look.ingress
    if ingress is None:
        return
    if ingress.subnets:
        yield from _named(look, ingress)
    elif ingress.subnet_tags_of_class:
        yield from _with_tags_of_class(look, ingress)
    elif not look.is_made:  # one that is there keeps its subnets
        yield from _with_role(look, ingress)


def _named(look: Look, ingress: Ingress) -> Check:
    of_class = f"IngressClass {ingress.class_name}"
    names = f"{of_class if ingress.params.get('subnets') else 'mern:values ingress.annotations'} names"
    there = sorted(_in_vpc(look), key=lambda subnet: subnet["SubnetId"])
    chosen: list[Description] = []
    for name in ingress.subnets:
        # Of several subnets with one name, each time that it is written stands for another.
        fits = [it for it in there if name in (it["SubnetId"], _tags(it).get("Name")) and it not in chosen]
        if not fits:
            yield Finding(f"{names} subnet {name}, which {look.eks.vpc_id} does not have", _list(look))
        chosen += fits[:1]
    if len(chosen) < len(ingress.subnets):
        return
    for zone, count in Counter(subnet["AvailabilityZone"] for subnet in chosen).items():
        if count > 1:
            yield Finding(
                f"{names} {count} subnets in {zone}: a load balancer takes one of a zone", _list(look)
            )
    yield from _kinds_and_count(look, chosen, names, _list(look))
    for subnet in chosen:
        if not look.is_made and (reason := _lack(subnet, ingress)):
            yield Finding(f"{names} {subnet['SubnetId']}, which {reason}", _list(look))


def _with_tags_of_class(look: Look, ingress: Ingress) -> Check:
    tags = ingress.subnet_tags_of_class
    where = f"the tags in the IngressClassParams of IngressClass {ingress.class_name}"
    if not isinstance(tags, Mapping):  # as EKS Auto Mode writes them
        yield Finding(f"whether there are subnets with {where} was not checked")
        return
    filters = {f"tag:{key}": values for key, values in tags.items()}
    candidates = look.aws.subnets({"vpc-id": [look.eks.vpc_id], **filters})
    yield from _candidates(look, ingress, candidates, where)


def _with_role(look: Look, ingress: Ingress) -> Check:
    tag = ingress.subnet_tag
    tagged = [subnet for subnet in _in_vpc(look) if tag in _tags(subnet)]
    candidates = [subnet for subnet in tagged if _tags(subnet)[tag] in ("", "1")]
    wrong = {
        it["SubnetId"]: f"has it with the value {_tags(it)[tag]}" for it in tagged if it not in candidates
    }
    if candidates:
        yield from _candidates(look, ingress, candidates, f"the tag {tag}", wrong)
        return
    text = f"no subnet of {look.eks.vpc_id} has the tag {tag} with the value 1 or none{_left_out(wrong)}"
    by_routes = look.gates.get("SubnetDiscoveryByReachability") != "false"
    if look.version and look.version < BY_ROUTES_SINCE:
        by_routes = False
    if look.mode == "auto-mode":
        yield Finding(f"{text}: EKS Auto Mode takes no others", _tag(look, tag, wrong))
    elif not by_routes:
        yield Finding(f"{text}: the load balancer controller here takes no others", _tag(look, tag, wrong))
    else:
        yield Finding(f"{text}: the load balancer controller goes by their routes")


def _candidates(
    look: Look,
    ingress: Ingress,
    candidates: list[Description],
    where: str,
    wrong: Mapping[str, str] | None = None,
) -> Check:
    """Check the subnets of which the controller takes one of each zone.

    Args:
        where: what they have in common.
        wrong: subnets that only seem to have it, by their ids, each with the reason.
    """
    left_out = dict(wrong or {})
    of_cluster = f"{OF_CLUSTERS}/{look.eks.name}"
    taken = []
    for subnet in candidates:
        others = [key for key in _tags(subnet) if key.startswith(OF_CLUSTERS)]
        reason = _lack(subnet, ingress)
        if others and of_cluster not in others and look.gates.get("SubnetsClusterTagCheck") != "false":
            reason = f"has the tag {others[0]} and not {of_cluster}"
        if reason:
            left_out[subnet["SubnetId"]] = reason
        else:
            taken.append(subnet)
    remedy = _list(look)
    if any(OF_CLUSTERS in reason for reason in left_out.values()):
        ids = [id for id, reason in left_out.items() if OF_CLUSTERS in reason]
        remedy = _tag(look, of_cluster, ids, "shared")
    elif ingress.subnet_tag in where:
        remedy = _tag(look, ingress.subnet_tag, wrong or {})
    if taken:
        before = f"with {where} the controller takes only"
        yield from _kinds_and_count(look, taken, before, remedy, _left_out(left_out))
    else:
        yield Finding(
            f"the controller takes no subnet of {look.eks.vpc_id} with {where}{_left_out(left_out)}", remedy
        )


def _kinds_and_count(
    look: Look, chosen: list[Description], before: str, remedy: str, after: str = ""
) -> Check:
    """Check that subnets are in two zones, or else in a place that is none.

    Args:
        before: what stands before their names in a finding; `after` likewise.
    """
    kinds = {_kind(subnet, look.eks.region) for subnet in chosen}
    names = ", ".join(f"{it['SubnetId']} ({it['AvailabilityZone']})" for it in chosen)
    zones = {subnet["AvailabilityZone"] for subnet in chosen}
    if len(kinds) > 1:
        yield Finding(
            f"a load balancer takes subnets of one kind: {before} {names}, of {' and '.join(sorted(kinds))}"
            f"{after}",
            remedy,
        )
    elif kinds == {"availability zones"} and len(zones) < 2 and look.gates.get("ALBSingleSubnet") != "true":
        yield Finding(f"a load balancer needs subnets in two zones: {before} {names}{after}", remedy)


def _lack(subnet: Description, ingress: Ingress) -> str:
    """Return what a subnet lacks for a load balancer, empty where that is nothing."""
    if (free := subnet.get("AvailableIpAddressCount", LEAST_ADDRESSES)) < LEAST_ADDRESSES:
        return f"has {free} free addresses, fewer than {LEAST_ADDRESSES}"
    blocks = subnet.get("Ipv6CidrBlockAssociationSet") or []
    if ingress.needs_ipv6 and not any(it["Ipv6CidrBlockState"]["State"] == "associated" for it in blocks):
        return "has no IPv6 addresses, which the Ingress asks for"
    return ""


def _kind(subnet: Description, region: str) -> str:
    """Return the kind of place that a subnet is in. Only an availability zone has the region's name and a
    letter."""
    if subnet.get("OutpostArn"):
        return "an Outpost"
    zone = subnet["AvailabilityZone"]
    if re.fullmatch(rf"{region}[a-z]", zone):
        return "availability zones"
    return "Wavelength Zones" if "-wl" in zone else "Local Zones"


def _in_vpc(look: Look) -> list[Description]:
    return look.aws.subnets({"vpc-id": [look.eks.vpc_id]})


def _tags(subnet: Description) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in subnet.get("Tags") or []}


def _left_out(reasons: Mapping[str, str]) -> str:
    """Return the end of a sentence on subnets that do not count, by their ids, each with the reason."""
    return "".join(f"; {id} {reason}" for id, reason in reasons.items())


def _list(look: Look) -> str:
    eks = look.eks
    return f"aws ec2 describe-subnets --filters Name=vpc-id,Values={eks.vpc_id} --region {eks.region}"


def _tag(look: Look, tag: str, ids: Iterable[str], value: str = "1") -> str:
    resources, region = " ".join(ids) or "SUBNET", look.eks.region
    return f"aws ec2 create-tags --resources {resources} --tags Key={tag},Value={value} --region {region}"
