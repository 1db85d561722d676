"""Deploys the MERN application's Helm chart to the cluster that the stack's config names."""

import pulumi

from components.cluster import connect
from components.load_balancer_controller import LoadBalancerController
from components.mern_application import MernApplication, plan_application
from settings import Settings

settings = Settings.load()
cluster = connect(settings.cluster, settings.aws)

# Whatever can refuse the deployment does so here, before anything but the providers is registered:
# `pulumi up` in CI shows no preview, and a bad chart must not leave half of the stack changed.
plan = plan_application(settings, cluster)

controller = LoadBalancerController.for_stack(settings.load_balancer_controller, cluster)
application = MernApplication(
    "mern",
    plan,
    settings.namespace,
    pulumi.ResourceOptions(provider=cluster.provider, depends_on=[controller] if controller else None),
)

pulumi.export("namespace", plan.args.namespace)
pulumi.export("release", plan.args.name)
pulumi.export("chart", plan.description)
pulumi.export("revision", application.release.status["revision"])
