"""AWS accounts on this machine, by moto: in this process, or on a server for other programs.

One server has all accounts: the access keys say whose call it is, as in AWS. They are those of an
assumed role, by which moto tells the account.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.loaders import JSONFileLoader
from moto import mock_aws
from moto.acm.models import acm_backends
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.responses import ActionResult
from moto.eks import urls
from moto.eks.exceptions import ResourceNotFoundException
from moto.eks.models import eks_backends
from moto.eks.responses import EKSResponse
from moto.iam.models import get_account_id_from
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

# Each new session would parse the large models of AWS' services anew.
_load_file = JSONFileLoader.load_file
_load_once = cache(lambda path: _load_file(JSONFileLoader(), path))
JSONFileLoader.load_file = lambda _, path: _load_once(path)

ANYBODY = {"aws_access_key_id": "anybody", "aws_secret_access_key": "made-up"}


class Eks(EKSResponse):
    """moto's EKS, and the calls it has not: add-ons and Pod Identity associations, which each cluster
    keeps. botocore holds what comes in and goes out to AWS's own service model, on the caller's side."""

    def _kept(self) -> dict[str, Any]:
        cluster = self.eks_backend.describe_cluster(self._get_param("name"))
        kept: dict[str, Any] = cluster.__dict__.setdefault("kept", {})
        return kept

    def _one(self, key: str) -> Any:
        name = self._get_param(key)
        if name not in self._kept():
            names: dict[str, None] = dict.fromkeys(
                ("clusterName", "nodegroupName", "fargateProfileName", "addonName")
            )
            raise ResourceNotFoundException(**names, message=f"Not found: {name}")
        return self._kept()[name]

    def create_addon(self) -> ActionResult:
        cluster, name = self._get_param("name"), self._get_param("addonName")
        arn = f"arn:aws:eks:{self.region}:{self.current_account}:addon/{cluster}/{name}/1"
        addon = {"addonName": name, "clusterName": cluster, "status": "ACTIVE", "addonArn": arn}
        self._kept()[name] = addon | {"addonVersion": "v1.0.0-eksbuild.1", "createdAt": datetime.now(UTC)}
        return ActionResult({"addon": self._kept()[name]})

    def describe_addon(self) -> ActionResult:
        return ActionResult({"addon": self._one("addonName")})

    def create_pod_identity_association(self) -> ActionResult:
        cluster, id = self._get_param("name"), f"a-{len(self._kept()):017x}"
        arn = f"arn:aws:eks:{self.region}:{self.current_account}:podidentityassociation/{cluster}/{id}"
        keys = ("namespace", "serviceAccount", "roleArn", "tags")
        made = {"clusterName": cluster, "associationId": id, "associationArn": arn}
        self._kept()[id] = made | {key: self._get_param(key) for key in keys}
        return ActionResult({"association": self._kept()[id]})

    def describe_pod_identity_association(self) -> ActionResult:
        return ActionResult({"association": self._one("associationId")})

    def list_pod_identity_associations(self) -> ActionResult:
        return ActionResult({"associations": [it for key, it in self._kept().items() if key[:2] == "a-"]})

    def update_pod_identity_association(self) -> ActionResult:
        self._one("associationId")["roleArn"] = self._get_param("roleArn")
        return ActionResult({"association": self._one("associationId")})

    def delete_pod_identity_association(self) -> ActionResult:
        gone = self._one("associationId")
        del self._kept()[gone["associationId"]]
        return ActionResult({"association": gone})


MORE_PATHS = (
    "addons$",
    "addons/(?P<addonName>[^/]+)$",
    "pod-identity-associations$",
    "pod-identity-associations/(?P<associationId>[^/]+)$",
)
urls.url_paths.update({f"{{0}}/clusters/(?P<name>[^/]+)/{path}": Eks.dispatch for path in MORE_PATHS})


NOTHING_OF_THE_USERS = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Variables that lead past what the user has of AWS."""


@contextmanager
def aws_in_this_process(patch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty account for the boto3 of this process, and credentials for it in the environment; its id.

    Args:
        patch: the test's own, so that what both change is put back in the right order.
    """
    keys = {key.upper(): value for key, value in ANYBODY.items()}
    with mock_aws(config={"core": {"mock_credentials": False}}):
        for key in (
            "AWS_PROFILE",
            "AWS_ENDPOINT_URL",
            "AWS_SESSION_TOKEN",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
        ):
            patch.delenv(key, raising=False)
        for key, value in (NOTHING_OF_THE_USERS | keys).items():
            patch.setenv(key, value)
        yield DEFAULT_ACCOUNT_ID


@dataclass(frozen=True)
class Call:
    """A request to AWS."""

    account: str
    service: str
    what: str
    """The action, or method and path."""


class Silent(WSGIRequestHandler):
    """Prints no line per request."""

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@dataclass(frozen=True)
class AwsServer:
    """The running server."""

    url: str
    calls: list[Call] = field(default_factory=list)

    def reset(self) -> None:
        """Empty all accounts."""
        moto_api_backend.reset()
        self.calls.clear()


@contextmanager
def aws_server() -> Iterator[AwsServer]:
    """A moto server on a free port of this machine, in a thread of this process."""
    application, calls = DomainDispatcherApplication(create_backend_app), list[Call]()

    def recorded(environ: dict[str, Any], start_response: Any) -> Any:
        key = re.search(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        body = application._get_body(environ) or ""
        action = re.search(r"(?:^|&)Action=(\w+)", body)
        target = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        what = action[1] if action else target or f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        if key:
            calls.append(Call(get_account_id_from(key[1]), key[2], what))
        return application(environ, start_response)

    moto_api_backend.reset()  # tests in this process may have used it
    server = make_server("127.0.0.1", 0, recorded, threaded=True, request_handler=Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield AwsServer(f"http://127.0.0.1:{server.port}", calls)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True, kw_only=True)
class Account:
    """An account of AWS in one region, and somebody who may do everything in it."""

    server: AwsServer
    id: str
    region: str
    keys: Mapping[str, str]

    @classmethod
    def open(cls, server: AwsServer, id: str, region: str) -> "Account":
        sts = boto3.client("sts", endpoint_url=server.url, region_name=region, **ANYBODY)
        role = f"arn:aws:iam::{id}:role/deployer"
        found = sts.assume_role(RoleArn=role, RoleSessionName="tests")["Credentials"]
        return cls(server=server, id=id, region=region, keys=found)

    @property
    def env(self) -> dict[str, str]:
        """Variables that lead any program to this account, and past what the user has of AWS."""
        return {
            "AWS_ENDPOINT_URL": self.server.url,
            "AWS_ACCESS_KEY_ID": self.keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": self.keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": self.keys["SessionToken"],
            **NOTHING_OF_THE_USERS,
        }

    @property
    def calls(self) -> list[Call]:
        """What was called in this account."""
        return [call for call in self.server.calls if call.account == self.id]

    def client(self, service: str) -> Any:
        """A client of boto3."""
        return boto3.client(
            service,
            endpoint_url=self.server.url,
            region_name=self.region,
            aws_access_key_id=self.keys["AccessKeyId"],
            aws_secret_access_key=self.keys["SecretAccessKey"],
            aws_session_token=self.keys["SessionToken"],
        )

    def create_cluster(self, name: str) -> None:
        """An EKS cluster with what it stands in: VPC, subnets, identity provider, add-on."""
        ec2, eks = self.client("ec2"), self.client("eks")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets: list[str] = []
        for zone, role in (("a", "elb"), ("b", "elb"), ("a", "internal-elb"), ("b", "internal-elb")):
            tags = [{"Key": f"kubernetes.io/role/{role}", "Value": "1"}]
            made = ec2.create_subnet(
                VpcId=vpc,
                CidrBlock=f"10.0.{len(subnets)}.0/24",
                AvailabilityZone=f"{self.region}{zone}",
                TagSpecifications=[{"ResourceType": "subnet", "Tags": tags}],
            )
            subnets.append(made["Subnet"]["SubnetId"])
        role = f"arn:aws:iam::{self.id}:role/cluster"
        where = {"subnetIds": subnets}
        issuer = eks.create_cluster(name=name, roleArn=role, resourcesVpcConfig=where)["cluster"]
        self.client("iam").create_open_id_connect_provider(
            Url=issuer["identity"]["oidc"]["issuer"],
            ClientIDList=["sts.amazonaws.com"],
            ThumbprintList=["0" * 40],
        )
        eks.create_addon(clusterName=name, addonName="eks-pod-identity-agent")
        self.cluster(name).resources_vpc_config["vpcId"] = vpc

    def issue_certificate(self, host: str) -> None:
        """A certificate of ACM for a host whose owner has shown to be one."""
        arn = self.client("acm").request_certificate(DomainName=host)["CertificateArn"]
        acm_backends[self.id][self.region].get_certificate(arn).status = "ISSUED"

    def cluster(self, name: str) -> Any:
        """moto's own cluster. Its attributes are what `describe_cluster` answers, by the names of the API
        in snake case: `endpoint`, `certificate_authority`, `compute_config` for Auto Mode, …"""
        return eks_backends[self.id][self.region].clusters[name]


def provider_program(path: Path) -> None:
    """Make `path` the program `pulumi-resource-aws`, of this Python and this checkout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    checkout = Path(__file__).parents[2]
    module = "tests.stand_ins.aws_provider"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{checkout}" exec "{sys.executable}" -m {module} "$@"\n')
    path.chmod(0o755)


def aws_program(folder: Path, cluster: str, region: str, token: str) -> None:
    """Put into `folder` a program `aws` that answers `eks get-token` for one cluster, and its calls into
    the file `calls` beside it. It wants AWS credentials, as the real one."""
    folder.mkdir(parents=True, exist_ok=True)
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "kind": "ExecCredential",
        "spec": {},
        "status": {"token": token},
    }
    (folder / "credential.json").touch(mode=0o600)
    (folder / "credential.json").write_text(json.dumps(credential))
    (folder / "aws").write_text(
        f"""#!/bin/sh
echo "$*" >>"{folder}/calls"
if [ -z "$AWS_ACCESS_KEY_ID" ]; then
    echo "Unable to locate credentials. You can configure credentials by running \\"aws configure\\"." >&2
    exit 253
fi
if [ "$*" != "eks get-token --cluster-name {cluster} --region {region}" ]; then
    echo "the tests' aws knows no such command: aws $*" >&2
    exit 252
fi
exec cat "{folder}/credential.json"
"""
    )
    (folder / "aws").chmod(0o755)
