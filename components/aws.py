"""Questions to AWS, asked by boto3. What is made in AWS is made by Pulumi's AWS provider."""

import contextlib
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

Description = Mapping[str, Any]
"""One thing, by the names of AWS's own API."""

LIMITS: dict[str, Any] = {
    "connect_timeout": 4,
    "read_timeout": 10,
    "retries": {"mode": "standard", "total_max_attempts": 2},
}
"""Somebody waits for a preview: botocore's own are a minute, five times."""

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

# Codes of AWS's refusals; services differ in how they name the same.
ABSENT = {"NoSuchEntity", "ResourceNotFoundException", "TargetGroupNotFound"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
NOT_ACCEPTED = {
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
    """A question that AWS does not answer. The text is the reason, for the user; it holds no secrets."""


class AbsentError(AwsError):
    """AWS knows no such thing."""


class CredentialsError(AwsError):
    """There are no credentials, or none that AWS accepts."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy
        """What to do and the commands for it, to be put after the reason and a colon."""


@dataclass(frozen=True)
class Aws:
    """AWS in one region, asked with the credentials that the AWS CLI would use.

    Every method raises AwsError where there is no answer. Threads may share it.
    """

    region: str | None
    """None: that of the environment."""
    _clients: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: Any = field(default_factory=Lock, init=False, repr=False, compare=False)

    def account_id(self) -> str:
        """The account of the credentials in use."""
        return str(self._ask("sts", "get_caller_identity")["Account"])

    def cluster(self, name: str) -> Description:
        """An EKS cluster."""
        return self._ask("eks", "describe_cluster", name=name)["cluster"]

    def addon(self, cluster: str, name: str) -> Description:
        """An add-on of an EKS cluster."""
        return self._ask("eks", "describe_addon", clusterName=cluster, addonName=name)["addon"]

    def oidc_provider(self, arn: str) -> Description:
        """An OIDC identity provider of the account."""
        return self._ask("iam", "get_open_id_connect_provider", OpenIDConnectProviderArn=arn)

    def subnets(self, filters: Mapping[str, str]) -> list[Description]:
        """The subnets that fit all of EC2's `filters`, name to value."""
        wanted = [{"Name": name, "Values": [value]} for name, value in filters.items()]
        return self._list("ec2", "describe_subnets", "Subnets", Filters=wanted)

    def certificates(self) -> list[Description]:
        """The certificates of the account in this region, with keys of all types."""
        wanted = {"keyTypes": list(KEY_TYPES)}
        return self._list("acm", "list_certificates", "CertificateSummaryList", Includes=wanted)

    def target_health(self, target_group: str) -> list[Description]:
        """The targets of a target group, an ARN, and their health."""
        answer = self._ask("elbv2", "describe_target_health", TargetGroupArn=target_group)
        return answer["TargetHealthDescriptions"]

    def delete_object(self, bucket: str, key: str) -> None:
        """Delete an object on S3; it need not be there."""
        self._ask("s3", "delete_object", Bucket=bucket, Key=key)

    def _ask(self, service: str, operation: str, **arguments: Any) -> Any:
        with _errors_for_users():
            return getattr(self._client(service), operation)(**arguments)

    def _list(self, service: str, operation: str, items: str, **arguments: Any) -> list[Description]:
        """All pages of an answer."""
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
    """Turn botocore's errors into ours."""
    from botocore import exceptions as botocore

    try:
        yield
    except botocore.ClientError as error:
        raise _of_answer(error) from None
    except (botocore.ConnectionError, botocore.HTTPClientError) as error:
        raise AwsError(f"AWS does not answer: {_in_one_line(str(error))}") from None
    except botocore.NoCredentialsError:
        raise CredentialsError(
            "there are no AWS credentials",
            f"choose a profile that has some (AWS_PROFILE), or log in\n{LOG_IN}",
        ) from None
    except botocore.ProfileNotFound as error:
        raise CredentialsError(
            f"there is no AWS profile {error.kwargs['profile']}",
            "choose another (AWS_PROFILE)\n      aws configure list-profiles",
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


def _of_answer(error: Any) -> AwsError:
    """The error for an answer of AWS that is a refusal: a ClientError of botocore."""
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    if code in EXPIRED:
        return CredentialsError("the AWS credentials in use have expired", f"log in anew\n{LOG_IN}")
    if code in NOT_ACCEPTED:
        # Not AWS's words: a signature that does not match comes with all that was to be signed.
        return CredentialsError(
            f"AWS does not accept the credentials in use ({code})",
            f"log in anew, or choose another profile (AWS_PROFILE)\n{LOG_IN}",
        )
    kind = AbsentError if code in ABSENT else AwsError
    text = _in_one_line(message.partition("\n")[0]) or "no reason given"
    return kind(f"AWS refuses {error.operation_name} ({code}): {text}")


def _in_one_line(text: str) -> str:
    """Not too long, and without the user and the password of an address."""
    return textwrap.shorten(re.sub(r"//[^/\s]*@", "//", text), 300, placeholder=" …")
