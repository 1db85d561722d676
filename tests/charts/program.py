from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes
import yaml
from pydantic import SecretStr

from components.release import Api, ChartRelease, ReleaseArgs, plan_release, quiet_exit

with quiet_exit():
    kubeconfig = Path("kubeconfig").read_text()
    values = {"replicas": 2, "token": SecretStr(pulumi.Config().require("token"))}
    args = ReleaseArgs(chart="./chart", name="web", namespace="shop", values=values)
    provider = kubernetes.Provider("cluster", kubeconfig=pulumi.Output.secret(kubeconfig))
    plan = plan_release(args, provider, Api(yaml.safe_load(kubeconfig)))
    release = ChartRelease("web", plan, pulumi.ResourceOptions(provider=provider))
    pulumi.export("revision", release.status["revision"])
