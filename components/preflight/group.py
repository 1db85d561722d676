"""Whether the Ingresses that share a load balancer agree: of a port it has one listener, with one list of
rules."""

from components.ingress import Ingress
from components.preflight.look import Check, Finding, Look


def group(look: Look) -> Check:
    """Check the Ingress against the others of its group in the cluster, of whatever namespace."""
    ours = look.ingress
    if ours is None or not ours.group:
        return
    live = look.live if look.live and look.live.group == ours.group else None
    for other in _others(look, ours):
        before = live.contradictions(other) if live else {}
        for name, (here, there) in ours.contradictions(other).items():
            yield Finding(
                f"group {ours.group} shares one load balancer, but {name} is {here} here and {there} in "
                f"Ingress {other.full_name}: the load balancer controller refuses both until they agree. To "
                "change one after the other, set mern:checks.group to false meanwhile",
                # One that is there already is no reason to refuse all else.
                "" if name in before else f"kubectl get ingress {other.name} -n {other.namespace} -o yaml",
            )
        yield from _takes_requests(ours, other)


def _others(look: Look, ours: Ingress) -> list[Ingress]:
    found = []
    for item in look.api.items("/apis/networking.k8s.io/v1/ingresses"):
        other = Ingress(item)
        if other.class_name == ours.class_name:
            other = Ingress(item, ours.params)
        is_own = (other.namespace, other.name) == (look.plan.args.namespace, ours.name)
        if other.group == ours.group and not is_own and not other.is_being_deleted:
            found.append(other)
    return found


def _takes_requests(ours: Ingress, other: Ingress) -> Check:
    """Check that neither of the two answers what is meant for the other."""
    in_group = f"Ingress {other.full_name} of group {ours.group}"
    if ours.redirects_to_https and not other.is_https:
        yield Finding(
            f"{in_group} serves plain HTTP alone, and mern:values ingress.tls.redirect sends all that comes "
            "to port 80 on to HTTPS: it is not reached any more"
        )
    if other.redirects_to_https and not ours.is_https:
        yield Finding(
            f"{in_group} sends all that comes to port 80 on to HTTPS, and mern:values ingress.tls.enabled is "
            "false: the application is not reached"
        )
    if ours.answers_everything and ours.place < other.place:
        yield Finding(
            f"{in_group} comes after this one, which without mern:values ingress.hosts answers everything: "
            "give hosts, or a higher ingress.group.order"
        )
    if other.answers_everything and other.place < ours.place:
        yield Finding(
            f"{in_group} comes before this one and names no host: it answers what is meant for the "
            "application. Set a lower mern:values ingress.group.order"
        )
