"""Deploys the MERN application's Helm chart to the cluster that the stack's config names."""

import gc

gc.disable()  # what is imported is no garbage: to look for some again and again takes a tenth of a preview

import pulumi

from components import preflight
from components.cluster import connect
from components.load_balancer_controller import LoadBalancerController
from components.mern_application import MernApplication, plan_application
from components.release import StackState, quiet_exit
from settings import Settings

gc.freeze()
gc.enable()

with quiet_exit():  # nothing of the language host stands below what this says
    settings = Settings.load()
    state = StackState.read()
    cluster = connect(settings.cluster, settings.aws, state)

    # Whatever can refuse the deployment does so here, before anything but the providers is registered:
    # `pulumi up` in CI shows no preview, and a bad chart must not leave half of the stack changed.
    plan = plan_application(settings, cluster, state)
    preflight.check(settings, cluster, plan)
    controller_plan = LoadBalancerController.plan(settings, cluster, state)

    controller = LoadBalancerController.install(controller_plan, cluster)
    application = MernApplication("mern", plan, settings, cluster, [controller] if controller else [])

    pulumi.export("cluster", cluster.identity.output)
    pulumi.export("namespace", plan.args.namespace)
    pulumi.export("release", plan.args.name)
    pulumi.export("chart", plan.description)
    pulumi.export("revision", application.release.status.apply(lambda it: it and it["revision"]))
    pulumi.export("hosts", application.hosts)
    pulumi.export("url", application.url)
    pulumi.export("loadBalancer", application.address)
    if controller:
        pulumi.export("controllerRoleArn", controller.role_arn)
