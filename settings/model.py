"""Every key of a stack's config: its type, its default and its meaning."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SecretStr,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from components.release.values import ABSENT, Path, get
from settings.hidden_characters import hidden_in_variable, hidden_in_word
from settings.images import TAG_PATTERN

PROJECT = "mern"
IMAGE_TAG_VARIABLE = "MERN_IMAGE_TAG"
"""An image tag for one run, in place of `mern:imageTag`: given as config, it would be saved."""

SECRET_VALUES = {
    "mernServer.mongodbUri": "mongodbUri",
    "mernServer.secrets": "serverSecrets",
    "pythonScript.mongodbUri": "mongodbUri",
    "pythonScript.awsAccessKeyId": "awsAccessKeyId",
    "pythonScript.awsSecretAccessKey": "awsSecretAccessKey",
}
"""Where the chart takes its credentials, and the key of the stack's config that fills the place."""


CONTROLLER_VALUES: tuple[Path, ...] = (
    ("clusterName",),
    ("region",),
    ("vpcId",),
    ("vpcTags",),
    ("serviceAccount", "create"),
    ("serviceAccount", "name"),
    ("serviceAccount", "annotations", "eks.amazonaws.com/role-arn"),
    ("serviceAccount", "annotations", "mern/installed-by"),
    ("podAnnotations", "mern/identity"),
    ("keepTLSSecret",),
    ("nameOverride",),
    ("fullnameOverride",),
    ("ingressClass",),
    ("createIngressClassResource",),
)
"""Paths in the values of the load balancer controller's chart that are this program's own: it sets them from
what it knows, or goes by what the chart makes of their defaults."""


@dataclass(frozen=True)
class Form:
    """A check of text: it matches `pattern`, or the fault is that it is not `name`."""

    pattern: str
    """As Python and ECMAScript read it: editors check it too, see `settings.schema`."""
    name: str

    def _check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise PydanticCustomError("form", "{name}", {"name": self.name})
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        # To ECMAScript \w is ASCII; of what is beyond, only the settings know which are letters.
        pattern = self.pattern.replace(r"\w", r"\w\u0080-\uffff")
        return {**handler(core), "pattern": f"^{pattern}$", "patternErrorMessage": f"Not {self.name}."}


def _without(hidden: Callable[[str], list[str]]) -> AfterValidator:
    """Return a check of a credential: `hidden` finds nothing in it. The fault never quotes it."""

    def check(secret: SecretStr) -> SecretStr:
        text = secret.get_secret_value()
        if not text.strip():
            raise PydanticCustomError("blank", "is blank")
        if characters := hidden(text):
            raise PydanticCustomError("hidden", "{characters}", {"characters": " and ".join(characters)})
        return secret

    return AfterValidator(check)


NonEmpty = Annotated[str, StringConstraints(min_length=1)]
DnsLabel = Annotated[
    str,
    Form(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "a name of at most 63 lower-case letters, digits and -"),
]
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_QUALIFIED = r"((?=.{1,253}/)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?" + _LABEL
LabelKey = Annotated[str, Form(_QUALIFIED, "the key of a label, as in example.com/team")]
LabelValue = Annotated[
    str,
    Form(
        f"({_LABEL})?",
        "the value of a label: at most 63 letters, digits and -_. with a letter or digit at both ends",
    ),
]
QuotaKey = Annotated[str, Form(_QUALIFIED, "the name of a resource, as in requests.memory")]
Quantity = Annotated[
    str, Form(r"[0-9]+(\.[0-9]+)?([mkMGTPE]|[KMGTPE]i|[eE][0-9]+)?", "a quantity, as in 10, 500m or 2Gi")
]
EksName = Annotated[str, Form(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", "the name of an EKS cluster")]
AccountId = Annotated[str, Form(r"[0-9]{12}", "an AWS account id, 12 digits")]
Region = Annotated[str, Form(r"[a-z]{2,}(-[a-z]+)+-[0-9]+", "an AWS region, as in eu-central-1")]
RoleArn = Annotated[str, Form(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]+", "the ARN of an IAM role")]
PolicyArn = Annotated[
    str, Form(r"arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[!-~]+", "the ARN of an IAM policy")
]
IamPath = Annotated[
    str,
    Form(r"(?=.{1,512}$)/([!-.0-~]+/)*", "a path of IAM, as in /teams/shop/, of at most 512 characters"),
]
TagKey = Annotated[
    str,
    Form(
        r"(?![aA][wW][sS]:)[\w .:/=+@-]{1,128}",
        "a tag's key for AWS: at most 128 letters, digits, blanks and _.:/=+-@, and no aws: before them",
    ),
]
TagValue = Annotated[
    str,
    Form(r"[\w .:/=+@-]{0,256}", "a tag's value for AWS: at most 256 letters, digits, blanks and _.:/=+-@"),
]
EnvName = Annotated[str, Form(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")]
ImageTag = Annotated[str, Form(TAG_PATTERN, "a tag of a container image")]
Repository = Annotated[
    str,
    Form(
        r"(https?|oci)://[!-~]+",
        "the address of a chart repository, as in https://aws.github.io/eks-charts",
    ),
]
Secret = Annotated[SecretStr, Field(min_length=1), _without(hidden_in_word)]
SecretVariable = Annotated[SecretStr, Field(min_length=1), _without(hidden_in_variable)]


class Model(BaseModel):
    """A part of the config: typed strictly, closed, written in camelCase."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


class ClusterSettings(Model):
    """The cluster to deploy to: an EKS cluster by its name, or a context of a kube config."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"anyOf": [{"required": ["kubeconfig"]}, {"required": ["context"]}]},
            "then": {"required": ["kubeconfig", "context"], "properties": {"eksClusterName": False}},
            "else": {"required": ["eksClusterName"]},
        }
    )

    eks_cluster_name: EksName | None = None
    """Name of an EKS cluster, in place of `kubeconfig` and `context`."""
    kubeconfig: NonEmpty | None = None
    """Path of a kube config, or several, separated by `:`; a relative path starts at the project."""
    context: NonEmpty | None = None
    """A context of that kube config. The current one is never used."""
    moves_from: NonEmpty | None = None
    """The cluster that the stack is deployed to until now, by the id that the refusal of another one names:
    deploy to the new one, and delete what runs in that one."""

    @model_validator(mode="after")
    def _require_one_cluster(self) -> "ClusterSettings":
        by_file = (self.kubeconfig is not None, self.context is not None)
        if by_file != (self.eks_cluster_name is None,) * 2:
            raise ValueError("needs either eksClusterName, or kubeconfig together with context")
        return self


class RolesSettings(Model):
    """What goes for the IAM roles that this stack makes, and for their policies."""

    permissions_boundary: PolicyArn | None = None
    """The IAM policy that limits what the roles may do, whatever their own policies allow."""
    path: IamPath = "/"
    """Of roles and policies. Another path makes them anew: an ARN has it in it."""


class AwsSettings(Model):
    """The AWS account and region that the stack belongs to, and what it makes there."""

    account_id: AccountId
    """The account, in quotes; credentials of another one are refused."""
    region: Region
    """The region of the cluster."""
    roles: RolesSettings = RolesSettings()
    tags: dict[TagKey, TagValue] = {}
    """Of what this stack makes in AWS. Its own of the same key do not count."""


class NamespaceAccessSettings(Model):
    """A group of users that may deploy to the namespace: a RoleBinding is made with it."""

    cluster_role: NonEmpty
    """Name of the ClusterRole that the group gets in the namespace."""
    group: NonEmpty
    """Name of the group."""


class NamespaceSettings(Model):
    """The namespace of the application."""

    name: DnsLabel
    """Name of the namespace."""
    mode: Literal["create", "existing"] = "create"
    """`create`: this stack owns it. `existing`: someone else does, and it only gets labels."""
    protect: bool = False
    """Refuse to delete it (with everything in it) until this is switched off."""
    labels: dict[LabelKey, LabelValue] = {}
    """Further labels, as `pod-security.kubernetes.io/enforce`."""
    quota: dict[QuotaKey, Quantity] = {}
    """What all pods together may have: `hard` of a ResourceQuota; empty: no quota."""
    access: NamespaceAccessSettings | None = None
    """For those who may make a namespace, and read Secrets in no other than their own."""


Identity = Literal["irsa", "pod-identity"]


class PythonScriptSettings(Model):
    """The AWS role of python-script, in place of keys: one that exists, or one that this stack makes."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["roleArn"]}, {"required": ["policy"]}]}
    )

    role_arn: RoleArn | None = None
    """ARN of an IAM role that exists."""
    policy: dict[str, Any] | None = None
    """IAM policy document of a role that this stack makes."""
    identity: Identity = "irsa"
    """How the script's pods get the role: `irsa`, by the cluster's OIDC provider, or `pod-identity`, by an
    EKS Pod Identity association."""

    @model_validator(mode="after")
    def _require_one_role(self) -> "PythonScriptSettings":
        if (self.role_arn is None) == (self.policy is None):
            raise ValueError("needs either roleArn, or policy")
        return self


class LoadBalancerControllerSettings(Model):
    """The AWS Load Balancer Controller."""

    mode: Literal["install", "existing", "auto-mode", "none"] = "none"
    """`install`: this stack owns it. `existing`: somebody else does; it is looked at and not touched.
    `auto-mode`: EKS Auto Mode has one of its own. `none`: no Ingress is served, and nothing looked at."""
    identity: Identity = "irsa"
    """How the controller's pods get their role, as in `mern:pythonScript`."""
    chart_repository: Repository = "https://aws.github.io/eks-charts"
    """Address of the repository with the controller's chart, `https://…` or `oci://…`."""
    values: dict[str, Any] = {}
    """Overrides of the values of the controller's chart, but for `CONTROLLER_VALUES`."""


class ChecksSettings(Model):
    """The checks before a deployment to EKS; each can be switched off."""

    ingress_class: bool = True
    """The IngressClass is there, and of the controller that `mern:loadBalancerController` names."""
    group: bool = True
    """The Ingresses that share the load balancer agree in what is its own."""
    subnets: bool = True
    """Two zones have a subnet for the load balancer."""
    certificates: bool = True
    """Each host has an issued certificate."""
    identity: bool = True
    """The account knows the cluster's OIDC issuer, or the cluster has the agent of EKS Pod Identity."""
    metrics: bool = True
    """With autoscalers in the chart, the cluster has a metrics server."""


class ReleaseSettings(Model):
    """The deployment of the chart."""

    timeout: Annotated[int, Field(ge=1, le=86_400)] = 300
    """Seconds that Helm waits for the objects to become ready before it rolls back."""
    show_objects: bool = True
    """Show the chart's Kubernetes objects in Pulumi's tree."""
    dry_run: bool = True
    """Ask the API server about each object before anything is changed."""
    drift: Literal["ignore", "report", "restore"] = "report"
    """Objects changed by hand in the cluster: do not look, say so, or put them back."""
    leave: list[NonEmpty] = []
    """Fields that others may change, as `Deployment/mern-server:spec.replicas`; `*` is any text."""
    adopt: bool = False
    """Take over a release of this name, and its namespace, that are there and not this stack's."""
    unlock_revision: Annotated[int, Field(ge=1)] | None = None
    """A revision that a killed run has left pending: mark it failed at once and go on."""


class StackConfig(Model):
    """The config of one stack; the keys are `mern:` and the names of the fields in camelCase."""

    cluster: ClusterSettings
    aws: AwsSettings | None = None
    namespace: NamespaceSettings
    values: dict[str, Any] = {}
    """Overrides of the chart's values; the chart's own schema checks them."""
    image_tag: ImageTag | None = None
    """Tag of all images that `values` gives none; absent: keep what runs."""
    mongodb_uri: Secret | None = None
    """MongoDB's connection string, for the server and the script."""
    server_secrets: dict[EnvName, SecretVariable] = {}
    """Secret environment variables of the server, name to text."""
    aws_access_key_id: Secret | None = None
    """The script's AWS access key, where `mern:pythonScript` gives it no role."""
    aws_secret_access_key: Secret | None = None
    """The other half of the script's AWS access key."""
    python_script: PythonScriptSettings | None = None
    load_balancer_controller: LoadBalancerControllerSettings = LoadBalancerControllerSettings()
    checks: ChecksSettings = ChecksSettings()
    release: ReleaseSettings = ReleaseSettings()


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a model by the keys that a user writes."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a type is, or allows; None where it is none."""
    for choice in (annotation, *get_args(annotation)):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
    return None


def _is_object(annotation: Any) -> bool:
    return model_in(annotation) is not None or get_origin(annotation) is dict


def _holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_holds_secret, get_args(annotation)))


KEYS = fields_of(StackConfig)
OBJECT_KEYS = {key for key, field in KEYS.items() if _is_object(field.annotation)}
"""The keys whose values the engine hands over as JSON."""
SECRET_KEYS = {key for key, field in KEYS.items() if _holds_secret(field.annotation)}
"""The keys whose values are credentials: the stack file holds them encrypted."""


def has_existing_secret(overrides: Any, part: str) -> bool:
    """Return whether `mern:values` names a Secret that somebody else fills for `part` of the chart."""
    name = get(overrides, (part, "existingSecret"))
    return name is not ABSENT and bool(name)
