"""The staging and production stacks, each with its own committed stack file: the real engine, provider,
Helm and API server, and a stand-in for AWS."""

import base64
import contextlib
import functools
import importlib.metadata
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube import ApiError
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.batch_v1 import CronJob
from lightkube.resources.core_v1 import Namespace, Secret, ServiceAccount
from lightkube.resources.networking_v1 import Ingress, IngressClass

from components.load_balancer_controller import CRDS, POLICY
from components.release import Api
from components.release.crds import FIELD_MANAGER
from sandbox.engine import MADE_UP_SECRETS, PROJECT
from tests.conftest import FOLDER, TestCluster
from tests.engine.conftest import ENGINE, Project, Run, share_program
from tests.engine.load_balancer_controller import (
    ADDRESS,
    CHART,
    TAGS,
    Controller,
    chart_repository,
    crd,
)
from tests.remedies import commands_in, is_here
from tests.stand_ins.aws_account import Account, AwsServer, aws_program, aws_server, provider_program

BEFORE = """
import pulumi
from pulumi_kubernetes.helm.v3 import Release, RepositoryOptsArgs

from components.load_balancer_controller import component
from components.release import crds


def as_before(name, plan, opts, before_delete=(), after=()):
    if not pulumi.runtime.is_dry_run():
        crds.apply(plan.api, plan.crds)
    opts.hooks = pulumi.ResourceHookBinding(before_delete=list(before_delete))
    args, at = plan.args, RepositoryOptsArgs(repo={repository!r})
    return Release(
        name, name=args.name, namespace=args.namespace, chart=args.name, version="3.5.0",
        repository_opts=at, values=args.values, timeout=args.timeout, atomic=True, max_history=10,
        skip_await=False, create_namespace=False, replace=True, opts=opts,
    )


component.ChartRelease = as_before
"""
"""What the program once made of the controller's release: a plain one, in the component itself."""
OF_CONTROLLER = {
    "ServiceAccount aws-load-balancer-controller",
    "Deployment aws-load-balancer-controller",
    "IngressClass alb",
    "Secret aws-load-balancer-tls",
    "MutatingWebhookConfiguration aws-load-balancer-webhook",
}
VALUES_OF_CONTROLLER = {
    "image": {"repository": "mirror.invalid/controller"},
    "enableShield": False,
    "enableWaf": False,
    "enableWafv2": False,
    "tolerations": [{"key": "system", "operator": "Exists"}],
    "resources": {"limits": {"memory": "512Mi"}},
    "defaultTags": {"team": "shop"},
    "replicaCount": 1,
}
CONTROLLER, ASSOCIATION = (
    "Release load-balancer-controller-release",
    "PodIdentityAssociation load-balancer-controller-association",
)
NAMESPACE, RELEASE = "Namespace mern-namespace", "Release mern"
POLICY_OF_SCRIPT = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::etl/*"}],
}


@dataclass(kw_only=True)
class AwsProject(Project):
    """The project with a stack on an EKS cluster in AWS."""

    aws: Account
    programs: Path
    """Folder of the program `aws`, first on PATH."""
    controller: Controller

    def destroy(self, *options: str) -> Run:
        """`pulumi destroy --run-program`, the one that the README gives."""
        return super().destroy("--run-program", *options)

    @property
    def config(self) -> Any:
        return yaml.safe_load(self.config_file.read_text())["config"]


@pytest.fixture(scope="module")
def server() -> Iterator[AwsServer]:
    with aws_server() as server:
        yield server


@pytest.fixture(scope="module")
def repository(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chart_repository(tmp_path_factory.mktemp("repository"), helm) as url:
        yield url


@pytest.fixture(scope="session")  # tests are dealt out anew at the end of a run
def token(cluster: TestCluster) -> str:
    """A token that may do everything in the cluster, as that of whoever deploys to EKS."""
    api = Api(yaml.safe_load(cluster.kubeconfig.read_text()))
    accounts = "/api/v1/namespaces/kube-system/serviceaccounts"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "deployer"}}
    # Applied, not created: each module that uses the fixture has one of its own.
    api.apply(f"{accounts}/deployer", account, fieldManager="tests")
    group = "rbac.authorization.k8s.io"
    api.apply(
        f"/apis/{group}/v1/clusterrolebindings/deployer",
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "deployer"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": "kube-system"}],
        },
        fieldManager="tests",
    )
    kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    made = api.create(f"{accounts}/deployer/token", kind | {"spec": {"expirationSeconds": 3600}})
    return str(made["status"]["token"])


@pytest.fixture(scope="module")
def aws_provider(provider: str) -> None:
    """The engine takes the stand-in for Pulumi's AWS provider."""
    program = FOLDER / "aws-provider/pulumi-resource-aws"
    provider_program(program)
    ENGINE.put_plugin("aws", importlib.metadata.version("pulumi-aws"), program)


@pytest.fixture
def open_stack(
    cluster: TestCluster,
    stack_file: Path,
    aws_provider: None,
    server: AwsServer,
    repository: str,
    token: str,
    helm: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Any]:
    """Opens one of the committed stacks, deployed nowhere yet, in an account of its own."""
    monkeypatch.setenv("HELM_CACHE_HOME", str(FOLDER / "helm-cache"))
    with contextlib.ExitStack() as ending:

        def open_stack(stack: str) -> AwsProject:
            for left in (FOLDER / "state/.pulumi").glob(f"**/{stack}.json*"):
                left.unlink()
            folder = tmp_path / "project"
            shutil.copytree(PROJECT / "chart", folder / "chart")
            share_program(folder)
            written = yaml.safe_load((PROJECT / f"Pulumi.{stack}.yaml").read_text())
            encrypted = yaml.safe_load(stack_file.read_text())
            written["config"] |= {key: encrypted["config"][key] for key in MADE_UP_SECRETS}
            written["encryptionsalt"] = encrypted["encryptionsalt"]
            (folder / f"Pulumi.{stack}.yaml").write_text(yaml.safe_dump(written))
            config = written["config"]
            remains = functools.partial(_left_over, cluster, config["mern:namespace"]["name"])
            eventually(lambda: not remains(), seconds=60, otherwise=remains)
            place, name = config["mern:aws"], config["mern:cluster"]["eksClusterName"]
            account = Account.open(server, place["accountId"], place["region"])
            account.create_cluster(name)
            eks, here = account.cluster(name), yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]
            eks.endpoint = here["cluster"]["server"]
            certificate = Path(here["cluster"]["certificate-authority"]).read_bytes()
            eks.certificate_authority = {"data": base64.b64encode(certificate).decode()}
            aws_program(tmp_path / "programs", name, place["region"], token)
            monkeypatch.setenv("PATH", str(tmp_path / "programs"), prepend=":")
            for key, value in account.env.items():
                monkeypatch.setenv(key, value)
            controller = Controller(cluster, config["mern:namespace"]["name"])
            project = AwsProject(
                folder=folder,
                stack=stack,
                namespace=config["mern:namespace"]["name"],
                cluster=cluster,
                aws=account,
                programs=tmp_path / "programs",
                controller=controller,
            )
            project.configure(loadBalancerController={"chartRepository": repository})
            # Cleaned when the controller has ended: it would put its finalizer back.
            ending.callback(_clean, project, helm)
            ending.enter_context(controller.running())
            return project

        yield open_stack


def _clean(project: AwsProject, helm: str) -> None:
    """What a test leaves in the cluster would be in the way of the next, which waits for its end."""
    client = project.cluster.client
    uninstall = ["uninstall", CHART.name, "--namespace", "kube-system", "--ignore-not-found"]
    subprocess.run([helm, *uninstall], env=project.cluster.env, check=True, capture_output=True)
    # Nobody else would release it now.
    with contextlib.suppress(ApiError):
        client.patch(Ingress, "mern", {"metadata": {"finalizers": None}}, namespace=project.namespace)
    with contextlib.suppress(ApiError):
        client.delete(Namespace, project.namespace)
    for name in crds(project.cluster):
        client.delete(CustomResourceDefinition, name)
    project.aws.server.reset()


def _left_over(cluster: TestCluster, namespace: str) -> list[Any]:
    """What is left of an earlier test, with what the namespace's deletion waits for."""
    spaces = [it for it in cluster.client.list(Namespace) if it.metadata.name == namespace]
    return crds(cluster) + [it.status for it in spaces]


def eventually(
    is_so: Callable[[], bool], seconds: float = 30, otherwise: Callable[[], object] = lambda: ""
) -> None:
    """Wait for what the cluster does by itself; `otherwise` tells what is in the way."""
    give_up = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up, otherwise()
        time.sleep(0.1)


@pytest.fixture
def staging(open_stack: Callable[[str], AwsProject]) -> AwsProject:
    return open_stack("staging")


def roles(project: AwsProject) -> list[str]:
    return [it["RoleName"] for it in project.aws.client("iam").list_roles()["Roles"]]


def policies(project: AwsProject) -> list[str]:
    return [it["Arn"] for it in project.aws.client("iam").list_policies(Scope="Local")["Policies"]]


def associations(project: AwsProject) -> list[Any]:
    name = project.config["mern:cluster"]["eksClusterName"]
    eks = project.aws.client("eks")
    return [
        eks.describe_pod_identity_association(clusterName=name, associationId=it["associationId"])[
            "association"
        ]
        for it in eks.list_pod_identity_associations(clusterName=name)["associations"]
    ]


def has_available(project: AwsProject, part: str, count: int) -> bool:
    return bool(project.get(Deployment, f"mern-{part}").status.availableReplicas == count)


def crds(cluster: TestCluster) -> list[str]:
    """The controller's, and that of `serve_metrics`."""
    found = cluster.client.list(CustomResourceDefinition)
    return [it.metadata.name for it in found if it.spec.group.endswith(("k8s.aws", "metrics.k8s.io"))]


def serve_metrics(cluster: TestCluster) -> None:
    """Have the cluster serve the API of a metrics server, with no figures in it."""
    cluster.client.create(CustomResourceDefinition.from_dict(crd("pods", "metrics.k8s.io")))
    api = Api(yaml.safe_load(cluster.kubeconfig.read_text()))
    eventually(lambda: api.find("/apis/metrics.k8s.io/v1beta1") is not None)


def in_kube_system(project: AwsProject, kind: Any) -> Any:
    return project.cluster.client.get(kind, CHART.name, namespace="kube-system")


def assert_nothing_is_left(project: AwsProject) -> None:
    assert project.state() == []
    assert (roles(project), policies(project), associations(project)) == ([], [], [])
    client = project.cluster.client
    assert project.namespace not in {it.metadata.name for it in client.list(Namespace)}
    for kind in (Deployment, ServiceAccount):
        with pytest.raises(ApiError, match="not found"):
            in_kube_system(project, kind)
    records = [it.metadata.name for it in client.list(Secret, namespace="kube-system")]
    assert not [name for name in records if name.startswith("sh.helm.release")]
    assert not list(client.list(IngressClass))
    # With them the objects of others would go.
    assert set(crds(project.cluster)) == set(CRDS)


def assert_deployed(project: AwsProject) -> None:
    config, iam = project.config, project.aws.client("iam")
    name = config["mern:cluster"]["eksClusterName"]
    cluster = project.aws.client("eks").describe_cluster(name=name)["cluster"]
    role = iam.get_role(RoleName=f"mern.{project.stack}.{name}.load-balancer-controller")["Role"]
    issuer = cluster["identity"]["oidc"]["issuer"].removeprefix("https://")
    [statement] = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"]["Federated"] == f"arn:aws:iam::{project.aws.id}:oidc-provider/{issuer}"
    assert iam.get_open_id_connect_provider(OpenIDConnectProviderArn=statement["Principal"]["Federated"])
    assert statement["Condition"]["StringEquals"] == {
        f"{issuer}:sub": "system:serviceaccount:kube-system:aws-load-balancer-controller",
        f"{issuer}:aud": "sts.amazonaws.com",
    }
    tags = {"project": "mern", "stack": project.stack, "cluster": name, "managed-by": "pulumi"}
    if given := config["mern:aws"].get("tags"):  # another `project`, to IAM the same key
        tags = {key: text for key, text in tags.items() if key != "project"} | given
    boundary = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    assert boundary == config["mern:aws"].get("roles", {}).get("permissionsBoundary")
    assert {it["Key"]: it["Value"] for it in role["Tags"]} == tags
    [attached] = iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]
    policy = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]
    assert {it["Key"]: it["Value"] for it in policy["Tags"]} == tags
    version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
    assert version["PolicyVersion"]["Document"] == json.loads(POLICY.read_text())

    # Helm would install the CRDs too, and never renew them.
    for each in CRDS:
        found = project.cluster.client.get(CustomResourceDefinition, each)
        assert {it.manager for it in found.metadata.managedFields if it.subresource != "status"} == {
            FIELD_MANAGER
        }
    controller = in_kube_system(project, Deployment)
    assert controller.status.availableReplicas == 2
    assert controller.spec.template.spec.containers[0].args == [
        f"--cluster-name={name}",
        f"--aws-region={project.aws.region}",
        f"--aws-vpc-id={cluster['resourcesVpcConfig']['vpcId']}",
    ]
    account = in_kube_system(project, ServiceAccount)
    assert account.metadata.annotations["eks.amazonaws.com/role-arn"] == role["Arn"]

    values = config["mern:values"]
    for part, of in (("client", "mernClient"), ("server", "mernServer")):
        found = project.get(Deployment, f"mern-{part}")
        least = values[of].get("replicas") or values[of]["autoscaling"]["minReplicas"]
        # An autoscaler starts with one, and goes on from there.
        eventually(functools.partial(has_available, project, part, least))
        [container] = found.spec.template.spec.containers
        assert container.image.startswith(values[of]["image"]["repository"] + ":")
    ingress = project.get(Ingress, "mern")
    assert [rule.host for rule in ingress.spec.rules] == values["ingress"]["hosts"]
    eventually(lambda: f"{project.namespace}/mern" in project.controller.served)
    [address] = project.get(Ingress, "mern").status.loadBalancer.ingress
    assert address.hostname == ADDRESS


def assert_refused(run: Run, *words: str) -> None:
    """One error, without a stack trace, and before anything but the providers was looked at."""
    assert not run.ok
    for word in words:
        assert word in run.output
    assert "Traceback" not in run.output
    assert run.output.partition("Diagnostics:")[2].count("error:") == 1, run.output
    providers = {"aws aws", "kubernetes cluster", "pulumi default"}  # the last reads the last outputs
    assert {what for _, _, what in run.steps} <= {"Stack mern-staging", *providers}


def test_a_preview_without_aws_credentials_is_refused_before_the_provider_does(
    staging: AwsProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(key)
    refused = staging.preview()
    assert_refused(
        refused,
        "mern:aws.accountId is 111111111111, but there are no AWS credentials: choose a profile that has "
        "some (AWS_PROFILE), or log in",
        "aws sso login",
    )
    assert {what for _, _, what in refused.steps} <= {"Stack mern-staging", "pulumi default"}


def test_staging_lives_its_whole_life_and_its_pods_get_their_roles_in_another_way(
    staging: AwsProject,
) -> None:
    staging.secrets = {"mern:mongodbUri": MADE_UP_SECRETS["mern:mongodbUri"]}
    iam, document = staging.aws.client("iam"), json.dumps(POLICY_OF_SCRIPT)
    limit = iam.create_policy(PolicyName="limit", PolicyDocument=document)["Policy"]["Arn"]
    staging.configure(
        pythonScript={"policy": POLICY_OF_SCRIPT, "identity": "pod-identity"},
        aws={"roles": {"permissionsBoundary": limit}, "tags": {"Project": "shop"}},
    )
    refuse_what_eks_lacks(staging)
    deploy(staging)
    change_to_pod_identity(staging)
    keep_a_controller_that_others_need(staging)
    down = staging.destroy()
    assert down.ok, down.output
    iam.delete_policy(PolicyArn=limit)
    assert_nothing_is_left(staging)


def refuse_what_eks_lacks(staging: AwsProject) -> None:
    """Both ways for pods to get their roles take something for granted."""
    name, iam = staging.config["mern:cluster"]["eksClusterName"], staging.aws.client("iam")
    agent = staging.aws.cluster(name).kept.pop("eks-pod-identity-agent")
    [issuer] = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    described = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=issuer["Arn"])
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=issuer["Arn"])
    assert_refused(
        staging.preview(),
        "2 things are in the way on EKS cluster staging",
        "the account does not know the cluster's OIDC issuer",
        "eksctl utils associate-iam-oidc-provider --approve --cluster staging",
        "the cluster lacks the add-on eks-pod-identity-agent",
        "aws eks create-addon",
    )
    staging.aws.cluster(name).kept["eks-pod-identity-agent"] = agent
    given = {key: described[key] for key in ("Url", "ClientIDList", "ThumbprintList")}
    iam.create_open_id_connect_provider(**given | {"Url": f"https://{described['Url']}"})


def deploy(staging: AwsProject) -> None:
    """The controller by irsa, as an earlier program did it; the script by Pod Identity with a role of its
    own."""
    staging.patch(BEFORE.format(repository=staging.config["mern:loadBalancerController"]["chartRepository"]))
    up = staging.up()
    assert up.ok, up.output
    assert_deployed(staging)
    ready = up.step("end", "create", CONTROLLER)
    assert ready < up.step("start", "create", NAMESPACE) < up.step("start", "create", RELEASE)
    # There are no other credentials for the cluster: the program and the provider both asked for these.
    asked = (staging.programs / "calls").read_text().splitlines()
    assert set(asked) == {f"eks get-token --cluster-name staging --region {staging.aws.region}"}

    [association] = associations(staging)
    job = staging.get(CronJob, "mern-python-script").spec.jobTemplate.spec.template.spec
    assert association["namespace"] == staging.namespace
    assert association["serviceAccount"] == job.serviceAccountName
    name = "mern.staging.staging.python-script"
    assert association["roleArn"].endswith(f":role/{name}")
    iam = staging.aws.client("iam")
    [attached] = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    version = iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId="v1")
    assert version["PolicyVersion"]["Document"] == POLICY_OF_SCRIPT
    assert "AWS_ACCESS_KEY_ID" not in staging.get(Secret, "mern-python-script").data


def change_to_pod_identity(staging: AwsProject) -> None:
    """What was set changes, and nothing else; the controller's release becomes one of this program. With
    another path, roles and policies are made anew."""
    before = in_kube_system(staging, Deployment).metadata.uid
    staging.program((PROJECT / "__main__.py").read_text())
    staging.configure(
        loadBalancerController={"identity": "pod-identity", "values": VALUES_OF_CONTROLLER},
        aws={"roles": {"path": "/teams/shop/"}},
        values={
            "mernServer": {"replicas": 2},
            "ingress": {"annotations": {TAGS: "team"}},
        },
    )
    up = staging.up()
    assert up.ok, up.output
    assert re.search(
        r"warning: the load balancer controller refuses Ingress mern \(FailedBuildModel, .* UTC\): Failed "
        rf"build model due to failed to parse stringMap annotation, {TAGS}: team\n",
        up.output,
    )
    assert {what for done, what in up.changes if done == "create-replacement"} == {
        f"{kind} {of}-{kind.lower().removeprefix('rolepolicy')}"
        for kind in ("Role", "Policy", "RolePolicyAttachment")
        for of in ("load-balancer-controller", "python-script")
    }
    assert {change for change in up.changes if "replace" not in change[0]} == {
        ("create", ASSOCIATION),
        ("update", "PodIdentityAssociation python-script-association"),
        ("create", "ChartRelease load-balancer-controller-release"),
        ("update", CONTROLLER),
        *(("create", item) for item in OF_CONTROLLER),
        ("update", RELEASE),
        ("update", "Deployment mern-server"),
        ("update", "Ingress mern"),
    }
    assert "Those that this run seems to create are there already" in up.output
    assert "will be replaced" not in up.output
    moved = in_kube_system(staging, Deployment)
    assert moved.metadata.uid == before
    records = [it.metadata.name for it in staging.cluster.client.list(Secret, namespace="kube-system")]
    assert f"sh.helm.release.v1.{CHART.name}.v2" in records
    [container] = moved.spec.template.spec.containers
    assert container.image == "mirror.invalid/controller:v3.5.0"
    assert [arg for arg in container.args if "enable" in arg or "tags" in arg] == [
        "--enable-shield=false",
        "--enable-waf=false",
        "--enable-wafv2=false",
        "--default-tags=team=shop",
    ]
    assert container.resources.limits == {"memory": "512Mi"}
    assert moved.spec.template.spec.tolerations[0].key == "system"
    assert up.step("end", "create", ASSOCIATION) < up.step("start", "update", CONTROLLER)
    [of_controller] = [it for it in associations(staging) if it["namespace"] == "kube-system"]
    role = staging.aws.client("iam").get_role(RoleName="mern.staging.staging.load-balancer-controller")
    assert of_controller["roleArn"] == role["Role"]["Arn"]
    account = in_kube_system(staging, ServiceAccount)
    assert of_controller["serviceAccount"] == account.metadata.name
    assert "eks.amazonaws.com/role-arn" not in account.metadata.annotations
    assert of_controller["tags"]["stack"] == "staging"
    [trust] = role["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    # They were made before, and kwok's pods are given nothing by EKS anyway.
    assert "1 pods of the load balancer controller have no credentials from EKS Pod Identity" in up.output
    restart = "kubectl rollout restart deployment/aws-load-balancer-controller -n kube-system"
    assert restart in commands_in(up.output)
    if is_here(restart):
        staging.paste(restart)
    # The load balancer has been made since the first deployment.
    assert staging.outputs()["url"] == "http://staging.example.com"
    assert staging.outputs()["loadBalancer"] == ADDRESS


def keep_a_controller_that_others_need(staging: AwsProject) -> None:
    """The application goes, and the controller stays until it has released what is of others."""
    client = staging.cluster.client
    client.create(Namespace.from_dict({"metadata": {"name": "another-team"}}))
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    meta = {"name": "web", "namespace": "another-team", "finalizers": ["group.ingress.k8s.aws/web"]}
    client.create(Ingress.from_dict({"metadata": meta, "spec": {"defaultBackend": backend}}))
    needed = staging.destroy()
    assert not needed.ok
    assert "the load balancer controller is still needed" in needed.output
    assert "Ingress another-team/web" in needed.output
    # The namespace can only go when its Ingress has, and that only while the controller runs.
    gone = needed.step("end", "delete", NAMESPACE)
    assert needed.step("end", "delete", RELEASE) < gone < needed.step("start", "delete", CONTROLLER)
    assert f"{staging.namespace}/mern" in staging.controller.released
    assert in_kube_system(staging, Deployment).status.availableReplicas == 1
    client.patch(Ingress, "web", {"metadata": {"finalizers": None}}, namespace="another-team")
    client.delete(Namespace, "another-team")


def test_production_is_deployed_as_committed_and_goes_only_when_its_protection_is_off(
    open_stack: Callable[[str], AwsProject],
) -> None:
    production = open_stack("production")
    serve_metrics(production.cluster)
    production.aws.issue_certificate("*.example.com")
    up = production.up()
    assert up.ok, up.output
    assert_deployed(production)
    assert production.outputs()["url"] == "https://www.example.com"

    calls = len(production.aws.calls)
    again = production.preview()
    assert again.ok, again.output
    assert again.changes == set(), "neither the autoscalers' replicas are a change nor a new certificate"
    assert "drift" not in again.output
    assert {call.what for call in production.aws.calls[calls:]} == {
        "GetCallerIdentity",
        "GET /clusters/production",
        "GetOpenIDConnectProvider",
        "ListCertificates",
    }, "the load balancer is there, and keeps its subnets"

    refused = production.destroy()
    assert not refused.ok
    assert "protected" in refused.output
    assert production.get(Deployment, "mern-server").status.availableReplicas
    assert in_kube_system(production, Deployment)
    # What a user does: release it in the stack file, tell the engine by an `up`, destroy.
    production.configure(
        namespace={"protect": False},
        values={
            "mernServer": {"autoscaling": {"minReplicas": 3}},
            "ingress": {"loadBalancerAttributes": {"deletion_protection.enabled": "true"}},
        },
    )
    run = production.up()
    assert run.ok, run.output
    assert "the load balancer controller" not in up.output + run.output, "it has accepted both"
    assert {each for each in run.changes if each[0] != "create"} == {("update", RELEASE)}
    # The destroy that was refused has taken rows out of the view, which come back.
    assert ("create", "HorizontalPodAutoscaler mern-server") in run.changes
    assert production.get(HorizontalPodAutoscaler, "mern-server").spec.minReplicas == 3
    assert "the load balancer is protected from deletion" in run.output
    # Protected in AWS, it would keep the Ingress and so the namespace.
    hangs = production.destroy()
    assert not hangs.ok
    refusal = "the load balancer is protected from deletion, and without it the Ingress cannot go"
    assert refusal in hangs.output
    assert "cannot be deleted" not in hangs.output
    # Nor without an Ingress in the config: it went half, and the namespace stayed in Terminating.
    production.configure(values={"ingress": {"enabled": False}})
    off = production.destroy()
    assert not off.ok
    assert f"the load balancer {ADDRESS} is protected from deletion" in off.output
    assert "pulumi config set --path 'mern:values.ingress.enabled' true --stack production" in off.output
    assert production.get(Ingress, "mern").metadata.deletionTimestamp is None
    assert in_kube_system(production, Deployment)


def test_a_controller_of_eks_or_of_somebody_else_is_looked_at_and_left_alone(
    staging: AwsProject, helm: str, repository: str
) -> None:
    command = [helm, "install", CHART.name, CHART.name, "--repo", repository, "--namespace", "kube-system"]
    command += ["--wait", "--set", "serviceAccount.name=theirs,clusterName=staging"]
    command += ["--set", "region=eu-central-1,vpcId=vpc-1,replicaCount=1,serviceAccount.create=true"]
    subprocess.run(command, env=staging.cluster.env, check=True, capture_output=True)
    api = Api(yaml.safe_load(staging.cluster.kubeconfig.read_text()))
    kept = {"metadata": {"labels": {"argocd.argoproj.io/instance": "theirs"}}}
    for name in CRDS[:2]:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        api.merge_patch(path, kept if name == CRDS[0] else {"spec": {"names": {"shortNames": ["new"]}}})
    fights = staging.preview()
    assert_refused(
        fights,
        "the cluster has a controller already: Deployment kube-system/aws-load-balancer-controller, which "
        "runs under ServiceAccount theirs",
        "pulumi config set --path 'mern:loadBalancerController.mode' existing",
        f"kept by argocd.argoproj.io (theirs), and both would change them in turn: {CRDS[0]}\n",
        f"in turn: {CRDS[1]}\n",  # of whoever that was; those that Helm has brought are nobody's
    )
    assert f"in turn: {CRDS[2]}" not in fights.output

    staging.configure(loadBalancerController={"mode": "existing"})
    up = staging.up()
    assert up.ok, up.output
    eventually(lambda: f"{staging.namespace}/mern" in staging.controller.served)
    labels = staging.cluster.client.get(Namespace, staging.namespace).metadata.labels
    assert labels["elbv2.k8s.aws/pod-readiness-gate-inject"] == "enabled"
    assert (roles(staging), policies(staging)) == ([], [])
    releases = [it["urn"] for it in staging.state() if it["type"] == "kubernetes:helm.sh/v3:Release"]
    assert [urn.rpartition("::")[2] for urn in releases] == ["mern"]

    staging.configure(loadBalancerController={"mode": "none"})
    alone = staging.preview()
    assert alone.ok, alone.output
    assert alone.changes == set()

    of_eks = {"metadata": {"name": "auto"}, "spec": {"controller": "eks.amazonaws.com/alb"}}
    staging.cluster.client.create(IngressClass.from_dict(of_eks))
    staging.configure(loadBalancerController={"mode": "auto-mode"}, values={"ingress": {"className": "auto"}})
    auto_mode = staging.preview("--diff")
    staging.cluster.client.delete(IngressClass, "auto")
    assert auto_mode.ok, auto_mode.output
    assert auto_mode.changes == {("update", NAMESPACE), ("update", RELEASE), ("update", "Ingress mern")}
    assert "the load balancer is replaced (ingress.className from alb to auto)" in auto_mode.output
    assert re.search(r"\+ eks\.amazonaws\.com/pod-readiness-gate-inject *: \"enabled\"", auto_mode.output)
    assert re.search(r"- elbv2\.k8s\.aws/pod-readiness-gate-inject *: \"enabled\"", auto_mode.output)
    assert in_kube_system(staging, Deployment).status.availableReplicas == 1
