"""Whether the chart's Ingress is served, and what becomes of the load balancer that is there."""

from components.ingress import Ingress, commands_to_unprotect
from components.load_balancer_controller import CONTROLLER_LABEL, INGRESS_CLASS
from components.preflight.look import Check, Finding, Look, quota
from components.release.manifest import Object
from components.release.values import ABSENT, get

MOST_RULES = 100
"""Of a load balancer, unless AWS raises the account's quota."""
MOST_VALUES = 5
"""That a rule compares a request with; likewise."""


def load_balancer(look: Look) -> Check:
    """Check whether the load balancer goes, or is replaced, and that the new one is within AWS's limits."""
    rendered = look.rendered
    if rendered and rendered.rule_count > MOST_RULES:
        yield Finding(
            f"the Ingress makes {rendered.rule_count} rules of a load balancer, hosts times paths: AWS "
            f"allows {MOST_RULES}{quota(look.eks.region)}"
        )
    if rendered and rendered.values_per_rule > MOST_VALUES:
        yield Finding(
            f"a rule of the Ingress compares {rendered.values_per_rule} values, with host, path and the "
            f"annotation conditions.SERVICE: AWS allows {MOST_VALUES}{quota(look.eks.region)}"
        )
    if rendered and look.mode == "none":  # nobody makes one
        return
    live = look.live
    if live and rendered is None:
        yield from _goes(look, live)
    elif live and look.ingress and live.address and not look.is_made:
        yield _is_replaced(live, look.ingress)
    elif live and look.ingress and (kept := sorted(live.attributes.keys() - look.ingress.attributes.keys())):
        yield Finding(
            f"mern:values ingress.loadBalancerAttributes has {', '.join(kept)} no more, and the load "
            "balancer keeps it as it was: the controller resets nothing. To reset it, set it to AWS's default"
        )


def _goes(look: Look, live: Ingress) -> Check:
    """Check an Ingress that the release has no more: Helm deletes it, where it is Helm's."""
    owner = get(live.item, ("metadata", "annotations", "meta.helm.sh/release-name"))
    if owner != look.plan.args.name:
        return
    if live.is_protected:
        commands = commands_to_unprotect(live, look.plan.args.namespace, look.stack, is_planned=False)
        yield Finding(
            f"the load balancer {live.address or 'of the Ingress'} is protected from deletion, and "
            "mern:values ingress.enabled is false: the Ingress could not go, and would stay half deleted. "
            "Switch its protection off",
            "\n      ".join(commands),
        )
    elif live.address:
        yield Finding(f"mern:values ingress.enabled is false: the load balancer {live.address} is deleted")


def _is_replaced(live: Ingress, planned: Ingress) -> Finding:
    compared = {
        "className": (live.class_name, planned.class_name),
        "scheme": (live.scheme, planned.scheme),
        "group.name": (live.group, planned.group),
    }
    changes = ", ".join(
        f"ingress.{key} from {before or 'none'} to {after or 'none'}"
        for key, (before, after) in compared.items()
        if before != after
    )
    protection = " Its protection from deletion does not stop that." if live.is_protected else ""
    return Finding(
        f"the load balancer is replaced ({changes}): {live.address} ends, unless other Ingresses of its "
        "group keep it, and the application is not reached until DNS leads to the new one, in some minutes."
        f"{protection} The next `up` shows the new address"
    )


def ingress_class(look: Look) -> Check:
    """Check that the Ingress's class is there and of the controller that is to serve it, and what it says."""
    rendered = look.rendered
    if rendered is None:
        return
    if look.mode == "auto-mode" and rendered.group:
        yield Finding(
            "mern:values ingress.group.name does nothing: EKS Auto Mode has groups in its IngressClassParams",
            f"pulumi config rm --path 'mern:values.ingress.group' --stack {look.stack}",
        )
    name, needed = rendered.class_name, look.controller.ingress_class_controller
    if look.ingress_class is None and look.mode == "install" and name == INGRESS_CLASS:
        return  # it comes with the controller
    actual = get(look.ingress_class or {}, ("spec", "controller"))
    if actual != needed:
        state = "is not there" if actual is ABSENT else f"is of {actual}"
        yield Finding(
            f"mern:loadBalancerController.mode is {look.mode}, but IngressClass {name} {state}, not of "
            f"{needed}: make one, or name another",
            f"pulumi config set --path 'mern:values.ingress.className' NAME --stack {look.stack}",
        )
        return
    yield from _parameters(look, name)
    if look.mode == "existing":
        yield from _existing_controller(look)


def _parameters(look: Look, name: str) -> Check:
    reference = get(look.ingress_class or {}, ("spec", "parameters"))
    if reference is ABSENT or not reference:
        return
    params = look.class_params
    if params is None:
        yield Finding(
            f"IngressClass {name} names {reference.get('kind')} {reference.get('name')} of "
            f"{reference.get('apiGroup')}, which is not there or not the controller's: no Ingress of this "
            "class is served",
            f"kubectl get ingressclass {name} -o yaml",
        )
        return
    params_name, spec = params["metadata"]["name"], params.get("spec") or {}
    yield from _namespace(look, params_name, spec.get("namespaceSelector") or {})
    assert look.rendered and look.ingress  # noqa: S101  only then it is called
    pairs = {
        "scheme": (look.rendered.scheme, look.ingress.scheme),
        "group.name": (look.rendered.group, look.ingress.group),
        "tls.certificateArns": (look.rendered.certificate_arns, look.ingress.certificate_arns),
        "loadBalancerAttributes": (look.rendered.attributes, look.ingress.attributes),
    }
    for key, (wanted, actual) in pairs.items():
        if wanted and wanted != actual:
            yield Finding(
                f"mern:values ingress.{key} does not count: IngressClassParams {params_name} says "
                f"{_text(actual)} for every Ingress of class {name}"
            )


def _text(value: object) -> str:
    return (
        ", ".join(f"{key}={text}" for key, text in value.items()) if isinstance(value, dict) else str(value)
    )


def _namespace(look: Look, params: str, selector: Object) -> Check:
    """Check that the class serves the namespace."""
    namespace = look.plan.args.namespace
    wanted = selector.get("matchLabels") or {}
    if selector.get("matchExpressions"):
        yield Finding(
            f"whether IngressClassParams {params} serves namespace {namespace} was not checked: its "
            "namespaceSelector has expressions"
        )
    elif wanted:
        there = look.api.find(f"/api/v1/namespaces/{namespace}") or {"metadata": {}}
        labels = there["metadata"].get("labels") or {}
        if missing := {key: value for key, value in wanted.items() if labels.get(key) != value}:
            pairs = " ".join(f"{key}={value}" for key, value in missing.items())
            yield Finding(
                f"IngressClassParams {params} serves only namespaces with the labels {pairs}, which "
                f"{namespace} has not",
                f"kubectl label namespace {namespace} --overwrite {pairs}",
            )


def _existing_controller(look: Look) -> Check:
    if not any(item.get("status", {}).get("readyReplicas") for item in look.deployments):
        yield Finding(
            "mern:loadBalancerController.mode is existing, but no pod of a load balancer controller is ready",
            f"kubectl get deployments -A -l {CONTROLLER_LABEL}",
        )
    watched = look.flags.get("watch-namespace", "")
    if watched not in ("", look.plan.args.namespace):
        yield Finding(
            f"the load balancer controller serves namespace {watched} alone (--watch-namespace)",
            f"kubectl get deployments -A -l {CONTROLLER_LABEL} -o yaml",
        )
    cluster = look.flags.get("cluster-name", look.eks.name)
    if cluster != look.eks.name:
        yield Finding(
            f"the load balancer controller takes this cluster for {cluster!r} (--cluster-name), not "
            f"{look.eks.name}: it finds subnets and load balancers by that name"
        )
