"""The AWS Load Balancer Controller on an EKS cluster: its permissions in AWS, its CRDs, and its Helm release.

It turns the application's Ingress into a load balancer, and so it comes before the application and
goes after it: without it an Ingress has no address, and one that is deleted waits for it forever.
"""

from components.load_balancer_controller.chart import CHART, CRDS, INGRESS_CLASS, POLICY, VERSION
from components.load_balancer_controller.component import LoadBalancerController
from components.load_balancer_controller.owners import CONTROLLER_LABEL, controllers
from components.load_balancer_controller.removal import IN_USE

__all__ = [
    "CHART",
    "CONTROLLER_LABEL",
    "CRDS",
    "INGRESS_CLASS",
    "IN_USE",
    "POLICY",
    "VERSION",
    "LoadBalancerController",
    "controllers",
]
