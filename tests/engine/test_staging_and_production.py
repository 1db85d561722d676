"""The staging and production stacks, each with its own committed stack file: the real engine, Helm and
API server, and a stand-in for AWS."""

import base64
import contextlib
import functools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pytest
import yaml
from lightkube import ApiError
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.batch_v1 import CronJob
from lightkube.resources.core_v1 import Namespace, Secret, ServiceAccount
from lightkube.resources.networking_v1 import Ingress, IngressClass

from components.load_balancer_controller import CRDS, POLICY, apply_crds
from components.release import Api
from components.release import ApiError as Refused
from sandbox.engine import MADE_UP_SECRETS, PROJECT, put_stand_in
from tests.conftest import FOLDER, TestCluster
from tests.engine.aws_account import Account, AwsServer, aws_program, aws_server
from tests.engine.conftest import Project, Run
from tests.engine.load_balancer_controller import ADDRESS, CHART, Controller, chart_repository, crd

CONTROLLER, ASSOCIATION = (
    "Release load-balancer-controller-release",
    "PodIdentityAssociation load-balancer-controller-association",
)
NAMESPACE, RELEASE = "Namespace mern-namespace", "Release mern"


@dataclass(kw_only=True)
class AwsProject(Project):
    """The project with a stack on an EKS cluster in AWS."""

    aws: Account
    programs: Path
    """Folder of the program `aws`, first on PATH."""
    controller: Controller

    def destroy(self, **options: Any) -> Run:
        """`pulumi destroy --run-program`, the one that the README gives."""
        return super().destroy(run_program=True, **options)

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


@pytest.fixture(scope="module")
def token(cluster: TestCluster) -> str:
    """A token that may do everything in the cluster, as that of whoever deploys to EKS."""
    api = Api(yaml.safe_load(cluster.kubeconfig.read_text()))
    accounts = "/api/v1/namespaces/kube-system/serviceaccounts"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "deployer"}}
    api.create(accounts, account)
    group = "rbac.authorization.k8s.io"
    api.create(
        f"/apis/{group}/v1/clusterrolebindings",
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "deployer"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": "kube-system"}],
        },
    )
    kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    made = api.create(f"{accounts}/deployer/token", kind | {"spec": {"expirationSeconds": 3600}})
    return str(made["status"]["token"])


@pytest.fixture
def open_stack(
    cluster: TestCluster,
    provider: str,
    server: AwsServer,
    repository: str,
    token: str,
    helm: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Any]:
    """Opens one of the committed stacks, deployed nowhere yet, in an account of its own."""
    put_stand_in(FOLDER / "provider/pulumi-resource-aws", "aws_provider")
    monkeypatch.setenv("HELM_CACHE_HOME", str(FOLDER / "helm-cache"))
    with contextlib.ExitStack() as ending:

        def open_stack(stack: str) -> AwsProject:
            shutil.rmtree(FOLDER / "work" / stack, ignore_errors=True)
            for left in (FOLDER / "state/.pulumi").glob(f"**/{stack}.json*"):
                left.unlink()
            folder = tmp_path / "project"
            folder.mkdir()
            shutil.copytree(PROJECT / "chart", folder / "chart")
            for file in ("Pulumi.yaml", f"Pulumi.{stack}.yaml"):
                shutil.copy(PROJECT / file, folder)
            config = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())["config"]
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
            project = AwsProject(
                folder=folder,
                stack=stack,
                namespace=config["mern:namespace"]["name"],
                cluster=cluster,
                aws=account,
                programs=tmp_path / "programs",
                controller=ending.enter_context(Controller(cluster).running()),
            )
            project.configure(loadBalancerController={"chartRepository": repository})
            ending.callback(_clean, project, helm)
            return project

        yield open_stack


def _clean(project: AwsProject, helm: str) -> None:
    """What a failed test leaves in the cluster would be in the way of the next."""
    client = project.cluster.client
    with contextlib.suppress(ApiError):
        client.delete(Namespace, project.namespace)
    eventually(lambda: project.namespace not in {it.metadata.name for it in client.list(Namespace)})
    uninstall = ["uninstall", CHART.name, "--namespace", "kube-system", "--ignore-not-found", "--wait"]
    subprocess.run([helm, *uninstall], env=project.cluster.env, check=True, capture_output=True)
    for name in crds(project):
        client.delete(CustomResourceDefinition, name)
    project.aws.server.reset()


def eventually(is_so: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for what the cluster does by itself."""
    give_up = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up
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


def crds(project: AwsProject) -> list[str]:
    """The controller's."""
    found = project.cluster.client.list(CustomResourceDefinition)
    return [it.metadata.name for it in found if it.spec.group.endswith("k8s.aws")]


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
    assert set(crds(project)) == set(CRDS)


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
    assert {it["Key"]: it["Value"] for it in role["Tags"]} == tags
    [attached] = iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]
    policy = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]
    assert {it["Key"]: it["Value"] for it in policy["Tags"]} == tags
    version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
    assert version["PolicyVersion"]["Document"] == json.loads(POLICY.read_text())

    # Helm would install the CRDs too, and never renew them.
    for each in CRDS:
        found = project.cluster.client.get(CustomResourceDefinition, each)
        assert {it.manager for it in found.metadata.managedFields if it.subresource != "status"} == {"mern"}
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


CHANGES = {
    "staging": ({"mernServer": {"replicas": 2}}, "Deployment mern-server"),
    "production": (
        {"mernServer": {"autoscaling": {"minReplicas": 3}}},
        "HorizontalPodAutoscaler mern-server",
    ),
}


@pytest.mark.parametrize("stack", ["staging", "production"])
def test_a_committed_stack_lives_its_whole_life(open_stack: Callable[[str], AwsProject], stack: str) -> None:
    project = open_stack(stack)
    up = project.up()
    assert up.ok, up.output
    assert_deployed(project)
    # There are no other credentials for the cluster: the program and the provider both asked for these.
    asked = (project.programs / "calls").read_text().splitlines()
    assert set(asked) == {f"eks get-token --cluster-name {stack} --region {project.aws.region}"}
    ready = up.step("end", "create", CONTROLLER)
    assert ready < up.step("start", "create", NAMESPACE) < up.step("start", "create", RELEASE)

    calls = len(project.aws.calls)
    again = project.up()
    assert again.ok, again.output
    assert again.changes == set()
    assert {call.what for call in project.aws.calls[calls:]} == {
        "GetCallerIdentity",
        f"GET /clusters/{stack}",
        "GetOpenIDConnectProvider",
        "DescribeSubnets",
    }
    assert (
        project.open().outputs()["url"].value
        == f"http://{project.config['mern:values']['ingress']['hosts'][0]}"
    )
    assert project.open().outputs()["loadBalancer"].value == ADDRESS

    values, changed = CHANGES[stack]
    if project.config["mern:namespace"].get("protect"):
        refused = project.destroy()
        assert not refused.ok
        assert "protected" in refused.output
        assert project.get(Deployment, "mern-server").status.availableReplicas
        assert in_kube_system(project, Deployment)
        # What a user does: release it in the stack file, tell the engine by an `up`, destroy.
        project.configure(namespace={"protect": False})
    project.configure(values=values)
    run = project.up()
    assert run.ok, run.output
    # A destroy that was refused has taken rows out of the view, which come back.
    came_back = stack == "production"
    assert ("create" if came_back else "update", changed) in run.changes
    assert {each for each in run.changes if each[0] != "create"} - {("update", changed)} == {
        ("update", RELEASE)
    }
    if came_back:
        assert project.get(HorizontalPodAutoscaler, "mern-server").spec.minReplicas == 3

    down = project.destroy()
    assert down.ok, down.output
    # The namespace can only go when its Ingress has, and that only while the controller runs.
    gone = down.step("end", "delete", NAMESPACE)
    assert down.step("end", "delete", RELEASE) < gone < down.step("start", "delete", CONTROLLER)
    assert f"{project.namespace}/mern" in project.controller.released
    assert_nothing_is_left(project)


def test_crds_are_brought_up_to_date_and_looked_at_in_a_preview(cluster: TestCluster) -> None:
    api = Api(yaml.safe_load(cluster.kubeconfig.read_text()))
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ingressclassparams.elbv2.k8s.aws"
    newer = crd("ingressclassparams", "elbv2.k8s.aws")
    older = crd("ingressclassparams", "elbv2.k8s.aws")
    older["spec"]["names"]["shortNames"] = ["old"]

    apply_crds(api, [older], dry_run=True)
    with pytest.raises(Refused):
        api.get(path)
    apply_crds(api, [older], dry_run=False)
    apply_crds(api, [newer], dry_run=True)
    assert "shortNames" in api.get(path)["spec"]["names"]
    apply_crds(api, [newer], dry_run=False)
    now = api.get(path)
    assert "shortNames" not in now["spec"]["names"]
    apply_crds(api, [newer], dry_run=False)
    # Of what is wanted; the API server itself writes the status when it likes.
    assert api.get(path)["metadata"]["generation"] == now["metadata"]["generation"]
    wrong = crd("ingressclassparams", "elbv2.k8s.aws")
    wrong["spec"]["scope"] = "Everywhere"
    with pytest.raises(Refused, match="Unsupported value"):
        apply_crds(api, [wrong], dry_run=True)
    cluster.client.delete(CustomResourceDefinition, "ingressclassparams.elbv2.k8s.aws")


def of_another_team(project: AwsProject, finalizers: list[str], **annotations: str) -> None:
    """An Ingress in a namespace of its own."""
    client = project.cluster.client
    if "another-team" not in {it.metadata.name for it in client.list(Namespace)}:
        client.create(Namespace.from_dict({"metadata": {"name": "another-team"}}))
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    meta = {"name": "web", "namespace": "another-team", "finalizers": finalizers}
    client.create(Ingress.from_dict({"metadata": meta, "spec": {"defaultBackend": backend}}))


def test_with_pod_identity_and_a_role_of_the_script_all_comes_and_goes_with_the_stack(
    staging: AwsProject,
) -> None:
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::etl/*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    staging.secrets = {"mern:mongodbUri": MADE_UP_SECRETS["mern:mongodbUri"]}
    staging.configure(
        loadBalancerController={"identity": "pod-identity"},
        pythonScript={"policy": policy, "identity": "pod-identity"},
        values={"ingress": {"loadBalancerAttributes": {"deletion_protection.enabled": "true"}}},
    )
    name = staging.config["mern:cluster"]["eksClusterName"]
    del staging.aws.cluster(name).kept["eks-pod-identity-agent"]
    refused = staging.preview()
    assert_refused(refused, "the cluster lacks the add-on eks-pod-identity-agent", "aws eks create-addon")
    staging.aws.client("eks").create_addon(clusterName=name, addonName="eks-pod-identity-agent")
    up = staging.up()
    assert up.ok, up.output
    of_controller, of_script = sorted(associations(staging), key=lambda it: str(it["namespace"]))
    iam = staging.aws.client("iam")
    role = iam.get_role(RoleName=f"mern.staging.{name}.load-balancer-controller")["Role"]
    assert of_controller["roleArn"] == role["Arn"]
    assert of_controller["namespace"] == "kube-system"
    assert of_controller["serviceAccount"] == in_kube_system(staging, ServiceAccount).metadata.name
    assert of_controller["tags"]["stack"] == "staging"
    [trust] = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert up.step("end", "create", ASSOCIATION) < up.step("start", "create", CONTROLLER)
    job = staging.get(CronJob, "mern-python-script").spec.jobTemplate.spec.template.spec
    assert (of_script["namespace"], of_script["serviceAccount"]) == (
        staging.namespace,
        job.serviceAccountName,
    )
    assert of_script["roleArn"].endswith(f":role/mern.staging.{name}.python-script")
    of_role = iam.list_attached_role_policies(RoleName=f"mern.staging.{name}.python-script")
    [attached] = of_role["AttachedPolicies"]
    version = iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId="v1")
    assert version["PolicyVersion"]["Document"] == policy
    assert "AWS_ACCESS_KEY_ID" not in staging.get(Secret, "mern-python-script").data
    # kwok's pods are given nothing by EKS.
    assert "2 pods of the load balancer controller have no credentials from EKS Pod Identity" in up.output
    assert "kubectl rollout restart deployment/aws-load-balancer-controller -n kube-system" in up.output

    # What would hang is refused: a load balancer that is protected, then a controller that others need.
    assert "the load balancer is protected from deletion" in up.output
    hangs = staging.destroy()
    assert not hangs.ok
    assert (
        "the load balancer is protected from deletion, and without it the Ingress cannot go" in hangs.output
    )
    assert staging.get(Ingress, "mern")
    attributes = {"deletion_protection.enabled": "false"}
    staging.configure(values={"ingress": {"loadBalancerAttributes": attributes}})
    assert staging.up().ok
    of_another_team(staging, ["group.ingress.k8s.aws/web"])
    needed = staging.destroy()
    assert not needed.ok
    assert "the load balancer controller is still needed" in needed.output
    assert "Ingress another-team/web" in needed.output
    assert in_kube_system(staging, Deployment).status.availableReplicas == 2
    client = staging.cluster.client
    client.patch(Ingress, "web", {"metadata": {"finalizers": None}}, namespace="another-team")
    client.delete(Ingress, "web", namespace="another-team")
    down = staging.destroy()
    assert down.ok, down.output
    assert_nothing_is_left(staging)


def test_a_controller_of_somebody_else_is_looked_at_and_left_alone(
    staging: AwsProject, helm: str, repository: str
) -> None:
    staging.configure(loadBalancerController={"mode": "existing"})
    seen = staging.preview()
    assert_refused(seen, "mode is existing, but IngressClass alb is not there, not of ingress.k8s.aws/alb")
    command = [helm, "install", CHART.name, CHART.name, "--repo", repository, "--namespace", "kube-system"]
    command += ["--wait", "--set", "serviceAccount.name=aws-load-balancer-controller,clusterName=staging"]
    command += ["--set", "region=eu-central-1,vpcId=vpc-1,replicaCount=1,serviceAccount.create=true"]
    subprocess.run(command, env=staging.cluster.env, check=True, capture_output=True)
    staging.configure(loadBalancerController={"mode": "install"})
    fights = staging.preview()
    assert_refused(fights, "the cluster has a controller of somebody else already")
    assert "pulumi config set --path 'mern:loadBalancerController.mode' existing" in fights.output

    staging.configure(loadBalancerController={"mode": "existing"})
    up = staging.up()
    assert up.ok, up.output
    assert roles(staging) == []
    eventually(lambda: f"{staging.namespace}/mern" in staging.controller.served)
    down = staging.destroy()
    assert down.ok, down.output
    assert in_kube_system(staging, Deployment).status.availableReplicas == 1


@pytest.mark.parametrize("mode", ["auto-mode", "none"])
def test_where_eks_or_nobody_has_a_controller_nothing_is_installed(staging: AwsProject, mode: str) -> None:
    staging.configure(loadBalancerController={"mode": mode})
    if mode == "auto-mode":
        seen = staging.preview()
        assert_refused(seen, "IngressClass alb is not there, not of eks.amazonaws.com/alb")
        spec = {"metadata": {"name": "alb"}, "spec": {"controller": "eks.amazonaws.com/alb"}}
        staging.cluster.client.create(IngressClass.from_dict(spec))
    up = staging.up()
    assert up.ok, up.output
    assert (roles(staging), policies(staging)) == ([], [])
    label = "eks.amazonaws.com" if mode == "auto-mode" else "elbv2.k8s.aws"
    labels = staging.cluster.client.get(Namespace, staging.namespace).metadata.labels
    assert labels[f"{label}/pod-readiness-gate-inject"] == "enabled"
    assert staging.destroy().ok
    if mode == "auto-mode":
        staging.cluster.client.delete(IngressClass, "alb")


def test_an_oidc_issuer_that_is_not_registered_is_refused_in_the_preview(staging: AwsProject) -> None:
    iam = staging.aws.client("iam")
    for provider in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]:
        iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=provider["Arn"])
    assert_refused(
        staging.preview(),
        "the account does not know the cluster's OIDC issuer",
        "eksctl utils associate-iam-oidc-provider --approve --cluster staging",
    )


def a_policy(staging: AwsProject, **changed: Any) -> None:
    """A program of one policy."""
    provider = aws.Provider("aws", region=staging.aws.region, allowed_account_ids=[staging.aws.id])
    statement = {"Effect": "Allow", "Action": changed.pop("action"), "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    aws.iam.Policy(
        "policy", name="policy", policy=policy, opts=pulumi.ResourceOptions(provider=provider), **changed
    )


def test_the_stand_in_for_aws_updates_in_place_and_holds_inputs_to_the_sdk(staging: AwsProject) -> None:
    iam = staging.aws.client("iam")
    staging.program = lambda: a_policy(staging, action="s3:GetObject", tags={"one": "1", "two": "2"})
    assert staging.up().ok
    staging.program = lambda: a_policy(staging, action="s3:PutObject", tags={"two": "3"})
    changed = staging.up(refresh=True)
    assert changed.ok, changed.output
    assert changed.changes == {("update", "Policy policy")}
    policy = iam.get_policy(PolicyArn=policies(staging)[0])["Policy"]
    assert policy["Tags"] == [{"Key": "two", "Value": "3"}]
    version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
    assert version["PolicyVersion"]["Document"]["Statement"][0]["Action"] == "s3:PutObject"

    staging.program = lambda: a_policy(staging, action="s3:PutObject", tags={"two": 3}, name_prefix="a")
    wrong = staging.preview()
    assert "tags is not pulumi.Input[Optional[Mapping[str, pulumi.Input[str]]]]" in wrong.output
    assert "handles no namePrefix" in wrong.output
    staging.program = lambda: None
    assert staging.up().ok
    assert policies(staging) == []


def assert_refused(run: Run, *words: str) -> None:
    """One error, without a stack trace, and before anything but the provider was looked at."""
    assert not run.ok
    for word in words:
        assert word in run.output
    assert "Traceback" not in run.output
    assert {what for _, _, what in run.steps} <= {"Stack mern-staging", "aws aws", "kubernetes cluster"}


def test_a_cluster_that_is_not_there_is_refused_in_the_preview(staging: AwsProject) -> None:
    staging.configure(cluster={"eksClusterName": "stagging"})
    assert_refused(
        staging.preview(),
        "mern:cluster.eksClusterName: account 111111111111 has no EKS cluster stagging in eu-central-1",
        "pulumi config set --path 'mern:cluster.eksClusterName' NAME",
    )


def test_credentials_of_another_account_are_refused_in_the_preview(
    staging: AwsProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Account.open(staging.aws.server, "333333333333", staging.aws.region)
    for key, value in other.env.items():
        monkeypatch.setenv(key, value)
    assert_refused(
        staging.preview(),
        "mern:aws.accountId is 111111111111, but the AWS credentials in use are of account 333333333333",
        "aws sts get-caller-identity",
    )


PREVIEW = """
import os, sys
from pathlib import Path
from pulumi.automation.errors import CommandError
from sandbox.engine import Engine

stack, folder, tools, project = sys.argv[1], *map(Path, sys.argv[2:])
try:
    Engine(folder=folder, tools=tools, project=project).stack(stack).preview(on_output=print, on_error=print)
except CommandError:
    sys.stdout.flush()
    os._exit(1)
"""


def test_a_preview_without_aws_credentials_is_refused(
    staging: AwsProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging.open()
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(key)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    # The engine ends a program whose provider is refused. It cannot end one that runs inside of another
    # process, where it waits for the provider ever after: hence a process of its own.
    places = [str(place) for place in (FOLDER, FOLDER / "bin", staging.folder)]
    command = [sys.executable, "-c", PREVIEW, "staging", *places]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "pulumi:providers:aws resource 'aws' has a problem: No valid credential" in done.stdout
    assert "installation-configuration" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
