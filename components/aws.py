"""Questions to AWS, asked by boto3, and the names of its resources. Pulumi's AWS provider makes those."""

import contextlib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

Description = Mapping[str, Any]
"""A resource as AWS describes it, with the keys of its API."""

LIMITS: dict[str, Any] = {
    "connect_timeout": 4,
    "read_timeout": 10,
    "retries": {"mode": "standard", "total_max_attempts": 2},
}
"""Of one question. Somebody waits for a preview: botocore's own are a minute, five times."""

KEY_TYPES = (
    "RSA_1024",
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "EC_prime256v1",
    "EC_secp384r1",
    "EC_secp521r1",
)
"""Without a list, ACM answers with RSA of up to 2048 bits alone."""

# Error codes of AWS; services differ in how they name the same.
ABSENT_CODES = {"NoSuchEntity", "ResourceNotFoundException", "TargetGroupNotFound"}
EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
REJECTED_CODES = {
    "AuthFailure",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}

LOG_IN = "      aws sso login\n      aws configure"


class AwsError(Exception):
    """A question that AWS has not answered. The text is the reason, for users; it holds no secrets."""


class AbsentError(AwsError):
    """A resource that AWS does not have."""


class CredentialsError(AwsError):
    """Credentials for AWS that are missing, or that it does not accept."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy
        """What to do and the commands for it, to be put after the reason and a colon."""


@dataclass(frozen=True, kw_only=True)
class Arn:
    """The name of a resource in all of AWS, as in `arn:aws:iam::123456789012:role/deployer`."""

    partition: str
    service: str
    region: str = ""
    """Empty where the service has no regions."""
    account_id: str = ""
    resource: str

    @classmethod
    def parse(cls, text: str) -> "Arn":
        """Return the parts of an ARN.

        Raises:
            ValueError: `text` is none.
        """
        first, *parts = text.split(":", 5)
        if first != "arn" or len(parts) != 5:
            raise ValueError(f"{text} is not an ARN")
        partition, service, region, account_id, resource = parts
        return cls(
            partition=partition, service=service, region=region, account_id=account_id, resource=resource
        )

    def __str__(self) -> str:
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account_id}:{self.resource}"


@dataclass(frozen=True)
class Aws:
    """A client of AWS in one region, with the credentials that the AWS CLI would use.

    Every method raises AwsError where there is no answer. Threads may share it.
    """

    region: str | None
    """None: that of the environment."""
    _clients: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: Any = field(default_factory=Lock, init=False, repr=False, compare=False)

    def account_id(self) -> str:
        """Return the id of the account that the credentials in use belong to."""
        return str(self._ask("sts", "get_caller_identity")["Account"])

    def cluster(self, name: str) -> Description:
        """Return an EKS cluster."""
        return self._ask("eks", "describe_cluster", name=name)["cluster"]

    def addon(self, cluster: str, name: str) -> Description:
        """Return an add-on of an EKS cluster."""
        return self._ask("eks", "describe_addon", clusterName=cluster, addonName=name)["addon"]

    def oidc_provider(self, arn: str) -> Description:
        """Return an OIDC identity provider of the account."""
        return self._ask("iam", "get_open_id_connect_provider", OpenIDConnectProviderArn=arn)

    def subnets(self, filters: Mapping[str, Sequence[str]]) -> list[Description]:
        """Return the subnets that fit all of EC2's `filters`, name to values of which one has to fit."""
        wanted = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
        return self._list("ec2", "describe_subnets", "Subnets", Filters=wanted)

    def certificates(self) -> list[Description]:
        """Return ACM's certificates of the account in this region, with keys of all types."""
        wanted = {"keyTypes": list(KEY_TYPES)}
        return self._list("acm", "list_certificates", "CertificateSummaryList", Includes=wanted)

    def target_health(self, target_group: str) -> list[Description]:
        """Return the targets of a target group, an ARN, with their health."""
        answer = self._ask("elbv2", "describe_target_health", TargetGroupArn=target_group)
        return answer["TargetHealthDescriptions"]

    def delete_object(self, bucket: str, key: str) -> None:
        """Delete an object on S3; one that is not there is no error."""
        self._ask("s3", "delete_object", Bucket=bucket, Key=key)

    def _ask(self, service: str, operation: str, **arguments: Any) -> Any:
        with _errors_for_users():
            return getattr(self._client(service), operation)(**arguments)

    def _list(self, service: str, operation: str, items: str, **arguments: Any) -> list[Description]:
        """Return the items of all pages of an answer."""
        with _errors_for_users():
            pages = self._client(service).get_paginator(operation).paginate(**arguments)
            return [item for page in pages for item in page.get(items, ())]

    def _client(self, service: str) -> Any:
        from botocore.config import Config

        with self._lock:  # boto3's sessions are for one thread at a time, its clients for many
            if service not in self._clients:
                self._clients[service] = self._session.client(service, config=Config(**LIMITS))
            return self._clients[service]

    @cached_property
    def _session(self) -> Any:
        import boto3  # takes a while, and a stack without AWS never comes here

        return boto3.Session(region_name=self.region)


@contextlib.contextmanager
def _errors_for_users() -> Iterator[None]:
    """Raise AwsError in place of botocore's errors."""
    from botocore import exceptions as botocore
    from botocore.session import Session

    try:
        yield
    except botocore.ClientError as error:
        raise _error_of_response(error) from None
    except (botocore.ConnectionError, botocore.HTTPClientError) as error:
        raise AwsError(f"AWS does not answer: {_in_one_line(str(error))}") from None
    except botocore.NoCredentialsError:
        raise CredentialsError(
            "there are no AWS credentials",
            f"choose a profile that has some (AWS_PROFILE), or log in\n{LOG_IN}",
        ) from None
    except botocore.ProfileNotFound as error:
        names = ", ".join(Session().available_profiles) or "none"
        raise CredentialsError(
            f"there is no AWS profile {error.kwargs['profile']}",
            f"choose another (AWS_PROFILE); there are {names}",
        ) from None
    except (
        botocore.ConfigParseError,
        botocore.CredentialRetrievalError,
        botocore.InvalidConfigError,
        botocore.LoginError,
        botocore.MetadataRetrievalError,
        botocore.MissingDependencyException,  # of a profile made by `aws login`
        botocore.NoAuthTokenError,
        botocore.PartialCredentialsError,
        botocore.SSOError,
        botocore.TokenRetrievalError,
    ) as error:
        raise CredentialsError(
            f"the AWS credentials cannot be had ({_in_one_line(str(error)).rstrip('.')})",
            f"log in anew, or choose another profile (AWS_PROFILE)\n{LOG_IN}",
        ) from None
    except botocore.BotoCoreError as error:
        raise AwsError(_in_one_line(str(error))) from None


def _error_of_response(error: Any) -> AwsError:
    """Return the error for a response of AWS that is one, a ClientError of botocore."""
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    if code in EXPIRED_CODES:
        return CredentialsError("the AWS credentials in use have expired", f"log in anew\n{LOG_IN}")
    if code in REJECTED_CODES:
        # Not AWS's words: a signature that does not match comes with all that was to be signed.
        return CredentialsError(
            f"AWS does not accept the credentials in use ({code})",
            f"log in anew, or choose another profile (AWS_PROFILE)\n{LOG_IN}",
        )
    kind = AbsentError if code in ABSENT_CODES else AwsError
    text = _in_one_line(message.partition("\n")[0]) or "no reason given"
    return kind(f"AWS refuses {error.operation_name} ({code}): {text}")


def _in_one_line(text: str) -> str:
    """Return `text` shortened, without the user and the password in an address."""
    return textwrap.shorten(re.sub(r"//[^/\s]*@", "//", text), 300, placeholder=" …")
