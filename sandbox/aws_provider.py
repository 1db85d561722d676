"""The tests' stand-in for `pulumi-resource-aws`, Pulumi's AWS provider plugin.

The real plugin is a download from its maker, and AWS needs an account. This program answers the engine
for the types in `RESOURCES` and the functions in `FUNCTIONS`, by boto3 calls to the server that
AWS_ENDPOINT_URL names, which must be on this machine. Facts to know:

- Credentials are boto3's own. None at all is the real plugin's check failure, an account outside of
  `allowedAccountIds` its error; what is not found is its "couldn't find resource".
- Inputs, arguments and answers are held to what the installed pulumi_aws declares; an input that its row
  of `RESOURCES` does not hand to AWS is refused by name. What AWS would refuse beyond that, botocore's
  service models and the server refuse. What is declared and nobody fills is null.
- Nothing is kept here. The server is moto, with the calls that moto's EKS has not, add-ons and Pod
  Identity associations (`tests/engine/aws_account.py`).
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from google.protobuf import empty_pb2

from sandbox import kubernetes_provider as plugin
from sandbox.kubernetes_provider import CallError, Wire, answering, messages, same, to_struct, to_wire

VERSION = "7.51.1"  # of pulumi-aws in requirements.txt
NO_CREDENTIALS = (
    "No valid credential sources found.\nPlease see "
    "https://www.pulumi.com/registry/packages/aws/installation-configuration/ for more information about "
    "providing credentials."
)
NOT_FOUND = {"NoSuchEntity", "ResourceNotFoundException", "InvalidSubnetID.NotFound"}


# -- what pulumi_aws declares --------------------------------------------------------------------


@functools.cache
def declared(token: str, suffix: str) -> dict[str, Any]:
    """Name on the wire → type, from the source of the SDK, because importing it is slow.

    Args:
        token: as in `aws:iam/role:Role`.
        suffix: `Args` for inputs, none for the outputs of a resource, `Result` for those of a function.
    """
    tree, name = _source(token)
    if suffix == "Args" and name.startswith("Get"):
        function = next(it for it in tree.body if isinstance(it, ast.FunctionDef))
        types = {it.arg: it.annotation for it in function.args.args}
        pairs = re.findall(r"__args__\['(\w+)'\] = (\w+)", ast.unparse(function))
        return {wire: types[python] for wire, python in pairs}
    owner = next(it for it in tree.body if isinstance(it, ast.ClassDef) and it.name == name + suffix)
    found = {}
    for it in (part for part in owner.body if isinstance(part, ast.FunctionDef)):
        for decorator in it.decorator_list:
            if ast.unparse(decorator).startswith("pulumi.getter"):
                named = getattr(decorator, "keywords", ())
                found[named[0].value.value if named else it.name] = it.returns
    return found


def _source(token: str) -> tuple[ast.Module, str]:
    package = importlib.util.find_spec("pulumi_aws")
    assert package and package.origin  # noqa: S101 - it is in requirements.txt
    module, _, name = token.removeprefix("aws:").partition(":")
    path = re.sub("[A-Z]", lambda it: f"_{it[0].lower()}", module).removeprefix("index/")
    text = (Path(package.origin).parent / f"{path}.py").read_text()
    return ast.parse(text), name[0].upper() + name[1:]


def fits(value: Any, kind: Any) -> bool:
    """Whether the value is of the type. Of an object inside only that it is one: AWS looks into it."""
    if value is None or value == plugin.UNKNOWN:
        return True
    if isinstance(kind, ast.Constant):
        return isinstance(value, dict)
    if not isinstance(kind, ast.Subscript):
        leaf: Any = {"str": str, "int": int, "float": (int, float), "bool": bool}.get(kind.attr, object)
        return isinstance(value, leaf) and (leaf is bool or not isinstance(value, bool))
    inner = kind.slice.elts if isinstance(kind.slice, ast.Tuple) else [kind.slice]
    outer = ast.unparse(kind.value).rpartition(".")[2]
    if outer == "Sequence":
        return isinstance(value, list) and all(fits(it, inner[0]) for it in value)
    if outer == "Mapping":
        return isinstance(value, dict) and all(fits(it, inner[1]) for it in value.values())
    return any(fits(value, it) for it in inner)


def faults(values: Wire, types: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names with what is wrong about them."""
    for key, value in values.items():
        if key not in types:
            yield key, f"pulumi_aws {VERSION} knows no {key}"
        elif not fits(value, types[key]):
            yield key, f"{key} is not {ast.unparse(types[key]).replace('_builtins.', '')}"


# -- AWS -----------------------------------------------------------------------------------------


class Aws:
    """Clients for the services of AWS."""

    def __init__(self, region: str | None = None) -> None:
        self.region = region

    @functools.cached_property
    def session(self) -> Any:
        import boto3

        host = urlsplit(os.environ.get("AWS_ENDPOINT_URL", "")).hostname
        if host not in ("127.0.0.1", "localhost", "::1"):
            raise CallError("the stand-in for AWS wants AWS_ENDPOINT_URL to be a server on this machine")
        return boto3.Session(region_name=self.region)

    @functools.cache  # noqa: B019 - lives as long as the process
    def __call__(self, service: str, region: str | None = None) -> Any:
        return self.session.client(service, region_name=region)


def calling(doing: str, function: Callable[..., Any], *args: Any) -> Any:
    """What `function` returns; an error of boto3 in the real plugin's words."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return function(*args)
    except BotoCoreError as error:  # no answer, or botocore's own validation
        text, status = str(error), 0
    except ClientError as error:
        meta, said = error.response["ResponseMetadata"], error.response["Error"]
        status = 404 if said["Code"] in NOT_FOUND else meta["HTTPStatusCode"]
        text = f"operation error {error.operation_name}, https response error StatusCode: {status}, "
        text += f"RequestID: {meta.get('RequestId', '')}, {said['Code']}: {said['Message']}"
        text = "couldn't find resource" if status == 404 else text
    raise CallError(f"1 error occurred:\n\t* {doing}: {text}\n\n", status=status)


def call(client: Any, text: str, it: Wire) -> Wire:
    """One call. Its text is `operation key:Argument key …`: which value is given under which name."""
    operation, *names = text.split()
    given = {}
    for key, _, name in (name.partition(":") for name in names):
        value = it.get(key)
        if name == "Tags":  # as IAM has them
            value = [{"Key": tag, "Value": text} for tag, text in (value or {}).items()]
        if value is not None:
            given[name or key] = value
    return dict(getattr(client, operation)(**given))


def lowered(answer: Wire) -> Wire:
    """AWS's names, dates and tags as Pulumi has them."""
    out: Wire = {}
    for key, value in answer.items():
        out[key[0].lower() + key[1:]] = value.isoformat() if isinstance(value, datetime) else value
    if isinstance(out.get("tags"), list):
        out["tags"] = {tag["Key"]: tag["Value"] for tag in out["tags"]}
    return out


def properties(token: str, suffix: str, found: Wire) -> Wire:
    """An answer to the engine: all that the SDK declares, and nothing else."""
    types = declared(token, suffix)
    known: Wire = dict.fromkeys(types) | {key: value for key, value in found.items() if key in types}
    known |= {key: found.get("tags") or {} for key in types.keys() & {"tags", "tagsAll"}}
    if wrong := [text for _, text in faults(known, types)]:
        raise CallError(f"the stand-in for AWS answers wrongly: {'; '.join(wrong)}")
    return known | ({"id": found["id"]} if "id" in found else {})


# -- resources -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a type of resource is in AWS. For the calls see `call`; they also have `id`, `gone` (keys of
    tags that are to go) and `yes`."""

    title: str
    service: str
    create: str
    id: str
    """Made of the inputs and of what the creation answers."""
    read: Callable[[Any, str, Wire], Wire | None]
    update: tuple[tuple[str, str], ...] = ()
    """Inputs, and the call that brings a change of them in force."""
    delete: str
    replacing: str

    @property
    def keys(self) -> set[str]:
        return {name.partition(":")[0] for name in self.create.split()[1:]} | {"region"}


def kept(text: str | None, document: Wire) -> str:
    """A policy as it was given, if it says what AWS has."""
    return text if text and same(json.loads(text), document) else json.dumps(document)


def read_role(iam: Any, id: str, it: Wire) -> Wire:
    role = iam.get_role(RoleName=id)["Role"]
    document = kept(it.get("assumeRolePolicy"), role["AssumeRolePolicyDocument"])
    return lowered(role) | {"name": id, "uniqueId": role["RoleId"], "assumeRolePolicy": document}


def read_policy(iam: Any, id: str, it: Wire) -> Wire:
    policy = iam.get_policy(PolicyArn=id)["Policy"]
    version = iam.get_policy_version(PolicyArn=id, VersionId=policy["DefaultVersionId"])["PolicyVersion"]
    return lowered(policy) | {
        "name": policy["PolicyName"],
        "policy": kept(it.get("policy"), version["Document"]),
    }


def delete_older_versions(iam: Any, id: str, _it: Wire) -> None:
    for version in iam.list_policy_versions(PolicyArn=id)["Versions"]:
        if not version["IsDefaultVersion"]:
            iam.delete_policy_version(PolicyArn=id, VersionId=version["VersionId"])


def read_attachment(iam: Any, id: str, _it: Wire) -> Wire | None:
    role, _, policy = id.partition("/")
    attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    found = {"role": role, "policyArn": policy}
    return found if policy in {it["PolicyArn"] for it in attached} else None


def read_association(eks: Any, id: str, it: Wire) -> Wire:
    found = eks.describe_pod_identity_association(clusterName=it["clusterName"], associationId=id)
    return lowered(found["association"])


UPDATE_ROLE = "update_role id:RoleName description:Description maxSessionDuration:MaxSessionDuration"
RESOURCES = {
    "aws:iam/role:Role": Kind(
        title="IAM Role",
        service="iam",
        create="create_role name:RoleName assumeRolePolicy:AssumeRolePolicyDocument path:Path tags:Tags"
        " description:Description maxSessionDuration:MaxSessionDuration",
        id="{name}",
        read=read_role,
        update=(
            ("assumeRolePolicy", "update_assume_role_policy id:RoleName assumeRolePolicy:PolicyDocument"),
            ("description", UPDATE_ROLE),
            ("maxSessionDuration", UPDATE_ROLE),
            ("tags", "untag_role id:RoleName gone:TagKeys"),
            ("tags", "tag_role id:RoleName tags:Tags"),
        ),
        delete="delete_role id:RoleName",
        replacing="name path",
    ),
    "aws:iam/policy:Policy": Kind(
        title="IAM Policy",
        service="iam",
        create="create_policy name:PolicyName policy:PolicyDocument path:Path tags:Tags"
        " description:Description",
        id="{arn}",
        read=read_policy,
        update=(
            ("policy", "create_policy_version id:PolicyArn policy:PolicyDocument yes:SetAsDefault"),
            ("tags", "untag_policy id:PolicyArn gone:TagKeys"),
            ("tags", "tag_policy id:PolicyArn tags:Tags"),
        ),
        delete="delete_policy id:PolicyArn",
        replacing="description name path",
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Kind(
        title="IAM Role Policy Attachment",
        service="iam",
        create="attach_role_policy role:RoleName policyArn:PolicyArn",
        id="{role}/{policyArn}",
        read=read_attachment,
        delete="detach_role_policy role:RoleName policyArn:PolicyArn",
        replacing="role policyArn",
    ),
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": Kind(
        title="EKS Pod Identity Association",
        service="eks",
        create="create_pod_identity_association clusterName namespace serviceAccount roleArn tags",
        id="{associationId}",
        read=read_association,
        update=(("roleArn", "update_pod_identity_association clusterName id:associationId roleArn"),),
        delete="delete_pod_identity_association clusterName id:associationId",
        replacing="clusterName namespace region serviceAccount tags",  # moto tags clusters only
    ),
}


# -- functions -----------------------------------------------------------------------------------


def only(found: list[Wire]) -> Wire:
    """The one that was looked for."""
    if len(found) != 1:
        what = "multiple resources match: narrow the search" if found else "couldn't find resource"
        raise CallError(f"1 error occurred:\n\t* {what}\n\n")
    return found[0]


def get_cluster(aws: Aws, it: Wire) -> Wire:
    found = aws("eks", it.get("region")).describe_cluster(name=it["name"])["cluster"]
    return lowered(found) | {
        "id": it["name"],
        "certificateAuthorities": [found["certificateAuthority"]],
        "identities": [{"oidcs": [found["identity"]["oidc"]]}],
        "vpcConfig": found["resourcesVpcConfig"],
        "kubernetesNetworkConfigs": [found.get("kubernetesNetworkConfig") or {}],
        "computeConfigs": [found.get("computeConfig") or {"enabled": False}],
        "accessConfigs": [found.get("accessConfig") or {}],
    }


def get_addon(aws: Aws, it: Wire) -> Wire:
    eks = aws("eks", it.get("region"))
    found = eks.describe_addon(clusterName=it["clusterName"], addonName=it["addonName"])["addon"]
    return lowered(found) | {"id": f"{it['clusterName']}:{it['addonName']}", "arn": found["addonArn"]}


def get_oidc_provider(aws: Aws, it: Wire) -> Wire:
    found = aws("iam").get_open_id_connect_provider(OpenIDConnectProviderArn=it["arn"])
    lists = {"clientIdLists": found["ClientIDList"], "thumbprintLists": found["ThumbprintList"]}
    return lowered(found) | lists | {"id": it["arn"], "arn": it["arn"], "url": found["Url"]}


def subnets(aws: Aws, it: Wire) -> list[Wire]:
    """Those that are looked for; by `filters`, `tags`, `id` and `vpcId` alone."""
    filters = [{"Name": one["name"], "Values": one["values"]} for one in it.get("filters") or ()]
    filters += [{"Name": f"tag:{key}", "Values": [value]} for key, value in (it.get("tags") or {}).items()]
    given = {"subnet-id": it.get("id"), "vpc-id": it.get("vpcId")}
    filters += [{"Name": key, "Values": [value]} for key, value in given.items() if value]
    found: list[Wire] = aws("ec2", it.get("region")).describe_subnets(Filters=filters)["Subnets"]
    return found


def get_subnets(aws: Aws, it: Wire) -> Wire:
    return it | {"id": aws.region, "ids": [found["SubnetId"] for found in subnets(aws, it)]}


def get_subnet(aws: Aws, it: Wire) -> Wire:
    found = only(subnets(aws, it))
    return lowered(found) | {"id": found["SubnetId"], "arn": found["SubnetArn"]}


FUNCTIONS: dict[str, tuple[str, Callable[[Aws, Wire], Wire]]] = {
    "aws:eks/getCluster:getCluster": ("EKS Cluster ({name})", get_cluster),
    "aws:eks/getAddon:getAddon": ("EKS Add-On ({clusterName}:{addonName})", get_addon),
    "aws:iam/getOpenIdConnectProvider:getOpenIdConnectProvider": ("IAM OIDC Provider", get_oidc_provider),
    "aws:ec2/getSubnets:getSubnets": ("EC2 Subnets", get_subnets),
    "aws:ec2/getSubnet:getSubnet": ("EC2 Subnet", get_subnet),
}


# -- the plugin ----------------------------------------------------------------------------------


def given(struct: Any) -> Wire:
    """A message of the engine as plain values, less those that are null."""
    return {key: value for key, value in plugin.plain(to_wire(struct)).items() if value is not None}


def comparable(struct: Any) -> Wire:
    """Inputs, or a state, with its policies in one way of writing them."""
    it = given(struct)
    for key in it.keys() & {"assumeRolePolicy", "policy"}:
        with contextlib.suppress(ValueError):  # not known yet
            it[key] = json.dumps(json.loads(it[key]), sort_keys=True)
    return it


class AwsProvider(plugin.ResourceProviderServicer):
    """The plugin as the engine sees it."""

    def __init__(self) -> None:
        self._aws = Aws()

    def stop(self) -> None:
        """Nothing goes on here that would have to be ended."""

    def _check_config(self, request: Any) -> messages.CheckResponse:
        known = Aws(given(request.news).get("region")).session.get_credentials() is not None
        failures = [] if known else [messages.CheckFailure(reason=NO_CREDENTIALS)]
        return messages.CheckResponse(inputs=request.news, failures=failures)

    def _diff_config(self, request: Any) -> messages.DiffResponse:
        old, new = given(request.olds), given(request.news)
        changed = [key for key in old | new if not same(old.get(key), new.get(key))]
        return messages.DiffResponse(changes=plugin.changes(changed), diffs=changed)

    def _configure(self, request: Any) -> messages.ConfigureResponse:
        self._aws = Aws(request.variables["aws:config:region"])
        allowed = json.loads(request.variables["aws:config:allowedAccountIds"] or "[]")
        account = calling("validating provider credentials", self._aws("sts").get_caller_identity)["Account"]
        if allowed and account not in allowed:
            raise CallError(f"1 error occurred:\n\t* AWS account ID not allowed: {account}\n\n")
        return messages.ConfigureResponse(supportsPreview=True)

    def _invoke(self, request: Any) -> messages.InvokeResponse:
        if request.tok not in FUNCTIONS:
            raise CallError(f"the stand-in for AWS has no function {request.tok}")
        (what, function), it = FUNCTIONS[request.tok], given(request.args)
        if wrong := [text for _, text in faults(it, declared(request.tok, "Args"))]:
            raise CallError(f"invoking {request.tok}: {'; '.join(wrong)}")
        try:
            found = calling(f"reading {what.format_map(it)}", function, self._aws, it)
        except CallError as error:
            raise CallError(f"invoking {request.tok}: {error.text}") from None
        answer = messages.InvokeResponse()
        getattr(answer, "return").CopyFrom(to_struct(properties(request.tok, "Result", found)))
        return answer

    def _act(self, request: Any, doing: str, what: str | Callable[..., Any], it: Wire, id: str = "") -> Any:
        kind = RESOURCES[request.type]
        client = self._aws(kind.service, it.get("region"))
        doing = f"{doing} {kind.title} ({id or it.get('name') or request.urn.rpartition('::')[2]})"
        if isinstance(what, str):
            return calling(doing, call, client, what, it | {"id": id, "yes": True})
        return calling(doing, what, client, id, it)

    def _state(self, request: Any, id: str, it: Wire) -> Any:
        """The state as AWS has it; None where it has none."""
        try:
            found = self._act(request, "reading", RESOURCES[request.type].read, it, id)
        except CallError as error:
            if error.status == 404:
                return None
            raise
        return found and properties(request.type, "", found)

    def _check(self, request: Any) -> messages.CheckResponse:
        if request.type not in RESOURCES:
            raise CallError(f"the stand-in for AWS has no {request.type}")
        types, news = declared(request.type, "Args"), given(request.news)
        wrong = list(faults(news, types))
        unhandled = types.keys() & news.keys() - RESOURCES[request.type].keys
        wrong += [(key, f"the stand-in for AWS handles no {key}") for key in unhandled]
        if "name" in types and "name" not in news:
            chance = f"{request.urn.rpartition('::')[2]}-{secrets.token_hex(4)[:7]}"
            news["name"] = given(request.olds).get("name") or chance
        failures = [messages.CheckFailure(property=key, reason=reason) for key, reason in wrong]
        return messages.CheckResponse(inputs=to_struct(news), failures=failures)

    def _diff(self, request: Any) -> messages.DiffResponse:
        old, new, inputs = map(comparable, (request.olds, request.news, request.old_inputs))
        kinds = plugin.detailed_diff(plugin.merge_patch(inputs, new, old), old, new, inputs)
        # Of a map, as tags are, it is the keys that differ.
        replacing = {it for it in kinds if it.split(".")[0] in RESOURCES[request.type].replacing.split()}
        return plugin.diff_answer(kinds, replacing, hasDetailedDiff=True)

    def _create(self, request: Any) -> messages.CreateResponse:
        kind, it = RESOURCES[request.type], given(request.properties)
        if request.preview:
            unknown = dict.fromkeys(declared(request.type, ""), plugin.UNKNOWN)
            return messages.CreateResponse(properties=to_struct(unknown | it))
        answer = self._act(request, "creating", kind.create, it)
        made: Wire = {}
        for part in answer.values():
            made |= lowered(part)
        id = kind.id.format_map(made | it)
        return messages.CreateResponse(id=id, properties=to_struct(self._state(request, id, it)))

    def _read(self, request: Any) -> messages.ReadResponse:
        inputs = given(request.inputs)
        state = self._state(request, request.id, given(request.properties) | inputs)
        if state is None:
            return messages.ReadResponse()
        wanted = inputs.keys() or RESOURCES[request.type].keys & state.keys()  # none at all: an import
        inputs = {key: state[key] for key in wanted if state[key] is not None}
        return messages.ReadResponse(id=request.id, properties=to_struct(state), inputs=to_struct(inputs))

    def _update(self, request: Any) -> messages.UpdateResponse:
        old, it = given(request.olds), given(request.news)
        if request.preview:
            return messages.UpdateResponse(properties=to_struct(old | it))
        gone = list(old.get("tags", {}).keys() - it.get("tags", {}).keys())
        for key, what in RESOURCES[request.type].update:
            # What AWS has filled in and nobody asks for stays.
            if (key in it or key == "tags") and not same(old.get(key), it.get(key)):
                self._act(request, "updating", what, it | {"gone": gone}, request.id)
        return messages.UpdateResponse(properties=to_struct(self._state(request, request.id, it)))

    def _delete(self, request: Any) -> empty_pb2.Empty:
        it = given(request.properties)
        try:
            if request.type == "aws:iam/policy:Policy":  # IAM wants the older versions gone first
                self._act(request, "deleting", delete_older_versions, it, request.id)
            self._act(request, "deleting", RESOURCES[request.type].delete, it, request.id)
        except CallError as error:
            if error.status != 404:
                raise
        return empty_pb2.Empty()

    GetPluginInfo = answering(lambda _self, _request: plugin.plugin_pb2.PluginInfo(version=VERSION))
    Cancel = answering(lambda _self, _request: empty_pb2.Empty())
    CheckConfig, DiffConfig = answering(_check_config), answering(_diff_config)
    Configure, Invoke = answering(_configure), answering(_invoke)
    Check, Diff, Create = answering(_check), answering(_diff), answering(_create)
    Read, Update, Delete = answering(_read), answering(_update), answering(_delete)


if __name__ == "__main__":
    plugin.run(AwsProvider())
