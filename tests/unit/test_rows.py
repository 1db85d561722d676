"""The messages that register rows."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
from pulumi.runtime.stack import wait_for_rpcs

from components.release import rows
from components.release.manifest import in_their_scope
from components.release.secrets import Secrets

RELEASE = "urn:pulumi:test::mern::kubernetes:helm.sh/v3:Release::web"


def crd(fields: int) -> dict[str, Any]:
    properties = {f"field{number}": {"type": "string"} for number in range(fields)}
    schema = {"openAPIV3Schema": {"type": "object", "properties": properties}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "shops.example.org"},
        "spec": {"versions": [{"name": "v1", "schema": schema}, {"name": "v2"}]},
    }


def row(item: dict[str, Any], *secrets: str) -> Any:
    [message] = rows.requests([item], RELEASE, "web", "shop", Secrets(secrets))
    return message


def test_a_row_depends_on_the_release_and_inherits_nothing_of_it() -> None:
    message = row({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": None})
    assert (message.type, message.name, message.parent) == ("helm:core/v1:ConfigMap", "web/shop/web", RELEASE)
    assert list(message.dependencies) == [RELEASE]
    assert {key: list(it.urns) for key, it in message.propertyDependencies.items()} == {
        "apiVersion": [],
        "kind": [],
        "metadata": [],
    }
    # Left out they would be the parent's.
    assert message.HasField("protect")
    assert message.HasField("retainOnDelete")
    assert (message.protect, message.retainOnDelete) == (False, False)


def test_the_sdk_waits_for_rows_before_a_program_ends_and_before_a_provider_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For a provider it waits for calls alone, and not for Outputs."""
    sent: list[Any] = []
    monkeypatch.setattr(rows, "_send", sent.append)

    async def slowly() -> str:
        await asyncio.sleep(0.01)
        return RELEASE

    async def construct() -> None:
        release = SimpleNamespace(urn=pulumi.Output.from_input(slowly()))
        item = {"apiVersion": "v1", "kind": "ConfigMap"}
        rows.show([item], release=release, name="web", namespace="shop", secrets=Secrets())
        await wait_for_rpcs(await_all_outstanding_tasks=False)

    asyncio.run(construct())
    assert [row.parent for row in sent] == [RELEASE]


def test_what_a_key_hides_is_one_secret() -> None:
    hidden = row(
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"hunter2!": {"a": "hunter2!"}}}, "hunter2!"
    )
    assert dict(hidden.object["data"]) == {**rows.SECRET, "value": {"hunter2!": {"a": "hunter2!"}}}


def test_a_large_schema_is_its_digest_and_changes_with_it() -> None:
    small, none = (version for version in row(crd(2)).object["spec"]["versions"])
    assert "openAPIV3Schema" in small["schema"]
    assert "schema" not in none
    large, larger = (row(crd(fields)).object["spec"]["versions"][0]["schema"] for fields in (1000, 1001))
    assert large.startswith("31 kB, SHA-256 ")
    assert large != larger


def test_an_object_of_the_cluster_has_no_namespace_whoever_brings_its_kind() -> None:
    """The provider gives it the release's, until the cluster knows the kind."""

    def kind(name: str, scope: str) -> dict[str, Any]:
        spec = {"group": "example.org", "names": {"kind": name}, "scope": scope}
        return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": spec}

    def item(name: str, namespace: str) -> dict[str, Any]:
        return {
            "apiVersion": "example.org/v1",
            "kind": name,
            "metadata": {"name": "a", "namespace": namespace},
        }

    among = kind("Shop", "Cluster")
    settled = in_their_scope(
        [among, item("Shop", "here"), item("Gadget", "here"), item("Part", "here"), item("Gadget", "there")],
        [kind("Gadget", "Cluster"), kind("Part", "Namespaced")],
        "here",
    )
    assert settled[0] == among
    assert [it["metadata"].get("namespace") for it in settled[1:]] == [None, None, "here", "there"]
