"""A context of a kube config: what is made of it for provider and client, and what is refused by its key.

What kubectl does with each of these was seen with client-go 0.33 (`clientcmd` and `rest.TransportFor`), which
the Kubernetes provider has inside.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components.cluster import connect
from components.kube_config import read_context
from components.release import StackState
from settings import ClusterSettings
from tests.unit.test_kubernetes_api import PASSWORD, Pair, pair

Entry = dict[str, Any]
V1 = "client.authentication.k8s.io/v1"
SERVER = {"server": "https://shop.example:6443"}
EXEC = {"apiVersion": V1, "command": "aws", "interactiveMode": "Never"}


@pytest.fixture(scope="module")
def me() -> Pair:
    return pair("me", is_authority=True)


@pytest.fixture
def folder(tmp_path: Path, me: Pair) -> Path:
    """A folder with the files that a kube config names."""
    folder = tmp_path / "kube"
    folder.mkdir()
    (folder / "me.crt").write_bytes(me.certificate)
    (folder / "me.key").write_bytes(me.key)
    (folder / "notes.txt").write_text("no certificate")
    (folder / "token").write_text(f"{PASSWORD}\n")
    (folder / "empty").touch()
    return folder


def write(folder: Path, cluster: Any = SERVER, user: Any = None, **more: Any) -> str:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "a", "cluster": cluster}],
        "users": [{"name": "b", "user": user}],
        "contexts": [{"name": "laptop", "context": {"cluster": "a", "user": "b", "namespace": "shop"}}],
    }
    (folder / "config").write_text(yaml.safe_dump(config | more))
    return str(folder / "config")


def read(file: str) -> tuple[Entry, Entry]:
    """Return cluster and user."""
    config = read_context(file, "laptop", "shop")
    [cluster], [user], [context] = config["clusters"], config["users"], config["contexts"]
    assert config["current-context"] == context["name"] == "laptop"
    assert (cluster["name"], user["name"]) == (context["context"]["cluster"], context["context"]["user"])
    return cluster["cluster"], user["user"]


def refusal(file: str, folder: Path) -> str:
    with pytest.raises(pulumi.RunError) as caught:
        read_context(file, "laptop", "shop")
    message = str(caught.value)
    assert PASSWORD not in message
    return message.replace(f"{folder}/", "")


def faults(file: str, folder: Path) -> list[str]:
    head, *lines = refusal(file, folder).split("\n    - ")
    assert head == "mern:cluster.context: context laptop of config cannot be used:"
    return lines


# ---- files beside the kube config


def test_files_beside_it_are_taken_into_it_and_other_paths_are_made_whole(
    folder: Path, me: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = SERVER | {"certificate-authority": "me.crt"}
    files = {"client-certificate": "./me.crt", "client-key": str(folder / "me.key")}
    file = write(folder, cluster, files | {"tokenFile": "token"})
    monkeypatch.chdir(folder)

    for path in (file, "config"):
        assert read(path) == (
            SERVER | {"certificate-authority-data": me.data},
            {
                "client-certificate-data": me.data,
                "client-key-data": me.key_data,
                "tokenFile": f"{folder}/token",  # is read again, as the token in it changes
            },
        )


@pytest.mark.parametrize(
    ("command", "whole"),
    [
        ("aws", "aws"),
        ("bin/aws", "{}/bin/aws"),
        ("./aws", "{}/aws"),
        ("../aws", "{}/../aws"),
        ("/aws", "/aws"),
    ],
)
def test_a_relative_command_begins_at_the_kube_config(folder: Path, command: str, whole: str) -> None:
    _, user = read(write(folder, user={"exec": EXEC | {"command": command}}))

    assert user["exec"]["command"] == whole.replace("{}", str(folder))


def test_whatever_the_client_and_the_provider_understand_is_kept_and_nothing_else(folder: Path) -> None:
    cluster: Entry = SERVER | {
        "tls-server-name": "shop.internal",
        "proxy-url": "socks5://localhost:1080",
        "disable-compression": True,
        "extensions": [
            {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "shop"}},
            {"name": "cluster_info", "extension": {"last-update": "2026-11-28"}},
        ],
    }
    user = {
        "exec": EXEC | {"env": [{"name": "A", "value": "b"}], "args": ["x"], "provideClusterInfo": True},
        "as": "deployer",
        "as-groups": ["shop"],
    }

    given = read(write(folder, cluster | {"color": "red"}, user | {"token": "", "username": None}))

    assert given == (cluster | {"extensions": cluster["extensions"][:1]}, user)


@pytest.mark.parametrize(
    "other",
    [
        {"token": "a"},
        {"tokenFile": "token"},
        {"username": "me", "password": "a"},
        {"client-certificate": "me.crt", "client-key": "me.key"},
    ],
)
def test_a_plugin_is_not_asked_by_a_user_with_other_credentials(folder: Path, other: Entry) -> None:
    assert "exec" not in read(write(folder, user={"exec": EXEC, **other}))[1]


def test_a_token_serves_where_its_file_is_gone(folder: Path) -> None:
    assert read(write(folder, user={"token": "a", "tokenFile": "gone"}))[1] == {"token": "a"}


def test_a_context_without_a_user_asks_without_credentials(folder: Path) -> None:
    file = write(folder, contexts=[{"name": "laptop", "context": {"cluster": "a", "user": ""}}])

    assert read(file) == (SERVER, {})


def test_no_credentials_are_sent_in_the_clear(folder: Path) -> None:
    user = {"token": PASSWORD, "as": "deployer"}

    assert read(write(folder, {"server": "http://127.0.0.1:8001"}, user))[1] == {"as": "deployer"}


# ---- several files


def test_of_several_files_the_first_with_a_name_counts_each_beside_its_own_files(
    folder: Path, tmp_path: Path, me: Pair
) -> None:
    more = tmp_path / "more"
    more.mkdir()
    first = write(more, SERVER | {"certificate-authority": "ca.crt"}, contexts=None, users=None)
    (more / "ca.crt").write_bytes(me.certificate)
    second = write(
        folder,
        {"server": "https://not-this.example"},
        {"client-certificate": "me.crt", "client-key": "me.key"},
    )
    files = os.pathsep.join((str(tmp_path / "gone"), first, str(folder / "empty"), second, ""))

    cluster, user = read(files)

    assert cluster == SERVER | {"certificate-authority-data": me.data}
    assert user["client-certificate-data"] == me.data


@pytest.mark.parametrize(
    ("files", "last"),
    [("{}/a", "a"), ("{}/a:{}/b", "b"), ("{}/a:~no-user-of-this-name/b", "~no-user-of-this-name/b")],
)
def test_files_of_which_none_is_there_are_refused(folder: Path, files: str, last: str) -> None:
    message = refusal(files.replace("{}", str(folder)).replace(":", os.pathsep), folder)

    assert message == (
        f"mern:cluster.kubeconfig: cannot read {last}: No such file or directory\n"
        "      pulumi config set --path 'mern:cluster.kubeconfig' PATH --stack shop"
    )


# ---- what is refused

PAIR = {"client-certificate": "me.crt", "client-key": "me.key"}
WRONG_CLUSTERS: list[tuple[Any, str]] = [
    (None, ".server is missing"),
    ([], " is not a mapping"),
    ({"server": 5}, ".server is not text: put it in quotes"),
    ({"server": "shop.example:6443"}, ".server is no URL that begins with https://"),
    ({"server": "https://"}, ".server is no URL that begins with https://"),
    ({"server": f"https://me:{PASSWORD}@shop"}, ".server holds credentials: they belong into users[].user"),
    (SERVER | {"tls-server-name": True}, ".tls-server-name is not text: put it in quotes"),
    (SERVER | {"insecure-skip-tls-verify": "yes"}, ".insecure-skip-tls-verify is not true or false"),
    (
        SERVER | {"insecure-skip-tls-verify": True, "certificate-authority": "me.crt"},
        ".insecure-skip-tls-verify does not go with a certificate-authority: remove one",
    ),
    (
        SERVER | {"certificate-authority": "me.crt", "certificate-authority-data": "YQ=="},
        " has certificate-authority and certificate-authority-data: remove one",
    ),
    (
        SERVER | {"certificate-authority": "gone.crt"},
        ".certificate-authority: cannot read gone.crt: No such file or directory",
    ),
    (SERVER | {"certificate-authority-data": "%"}, ".certificate-authority-data is not base64"),
    (
        SERVER | {"certificate-authority": "notes.txt"},
        ".certificate-authority-data holds no certificate in PEM",
    ),
    *(
        (
            SERVER | {"proxy-url": url},
            ".proxy-url is no URL that begins with http://, https:// or socks5://",
        )
        for url in (
            "proxy:3128",
            f"ftp://me:{PASSWORD}@proxy",
            "http://proxy:port",
            "socks4://proxy",
            "http://",
        )
    ),
]
WRONG_USERS: list[tuple[Any, str]] = [
    ({"token": 12345}, ".token is not text: put it in quotes"),
    ({"token": f"{PASSWORD}\n"}, ".token holds a line break, or a letter that no token has"),
    ({"tokenFile": "gone"}, ".tokenFile: cannot read gone: No such file or directory"),
    ({"tokenFile": "empty"}, ".tokenFile: empty is empty"),
    ({"token": PASSWORD, "username": "me"}, " has a token and a username or password: remove one of both"),
    ({"tokenFile": "token", "password": "a"}, " has a token and a username or password: remove one of both"),
    (
        {"auth-provider": {"name": "gcp", "config": {"access-token": PASSWORD}}},
        ".auth-provider gcp is not supported: name an exec plugin in its place, as by\n"
        "        gcloud container clusters get-credentials CLUSTER",
    ),
    (
        {"auth-provider": {"name": "oidc"}},
        ".auth-provider oidc is not supported: name an exec plugin in its place, as by\n"
        "        kubectl oidc-login setup --oidc-issuer-url=ISSUER --oidc-client-id=CLIENT",
    ),
    (
        {"auth-provider": {"name": "openstack"}},
        ".auth-provider openstack is not supported: name an exec plugin in its place",
    ),
    ({"as-groups": ["a"]}, ".as-groups needs users[].user.as"),
    ({"as": "a", "as-groups": "b"}, ".as-groups is not a list"),
    (PAIR | {"client-key-data": "YQ=="}, " has client-key and client-key-data: remove one"),
    (
        {"client-certificate": "me.crt"},
        ".client-key is missing, or client-key-data: a client certificate needs one",
    ),
    (
        PAIR | {"client-key": "notes.txt"},
        ".client-certificate and client-key are no certificate and its key in PEM",
    ),
    ({"exec": {}}, ""),
    ({"exec": EXEC | {"command": None}}, ".exec.command is missing"),
    ({"exec": EXEC | {"env": [{"value": "a"}]}}, ".exec.env[0].name is missing"),
    (
        {"exec": EXEC | {"apiVersion": "client.authentication.k8s.io/v1alpha1"}},
        ".exec.apiVersion is client.authentication.k8s.io/v1alpha1, which kubectl does not support: have the "
        "entry made anew, with client.authentication.k8s.io/v1beta1, as by\n"
        "        aws eks update-kubeconfig --name CLUSTER",
    ),
    (
        {"exec": EXEC | {"interactiveMode": "Always"}},
        ".exec.interactiveMode is Always, but there is no terminal that the plugin could ask at",
    ),
    ({"exec": EXEC | {"interactiveMode": "Ever"}}, ".exec.interactiveMode is Ever: Never or IfAvailable"),
    (
        {"exec": EXEC | {"interactiveMode": None}},
        f".exec.interactiveMode is missing, which {V1} requires: Never or IfAvailable",
    ),
]


@pytest.mark.parametrize(("cluster", "fault"), WRONG_CLUSTERS)
def test_a_wrong_cluster_is_refused_by_its_key(folder: Path, cluster: Any, fault: str) -> None:
    assert faults(write(folder, cluster), folder) == [f"clusters[].cluster{fault}"]


@pytest.mark.parametrize(("user", "fault"), [case for case in WRONG_USERS if case[1]])
def test_a_wrong_user_is_refused_by_its_key(folder: Path, user: Any, fault: str) -> None:
    assert faults(write(folder, user=user), folder) == [f"users[].user{fault}"]


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_passphrase(folder: Path) -> None:
    subprocess.run(
        ["openssl", "pkey", "-aes256", "-passout", "pass:a", "-in", "me.key", "-out", "locked.key"],
        cwd=folder,
        check=True,
    )

    assert faults(write(folder, user=PAIR | {"client-key": "locked.key"}), folder) == [
        "users[].user.client-key is encrypted, which kubectl cannot read: write it without a passphrase\n"
        "        openssl pkey -in KEY -out NEW"
    ]


def test_all_faults_are_told_at_once(folder: Path) -> None:
    cluster = {"certificate-authority": "gone.crt", "proxy-url": "proxy"}

    assert len(faults(write(folder, cluster, {"tokenFile": "gone", "as-uid": "5"}), folder)) == 5


@pytest.mark.parametrize(
    ("context", "fault"),
    [
        ({"cluster": "", "user": "b"}, "contexts[].context.cluster is missing"),
        (
            {"cluster": "c", "user": "b"},
            "contexts[].context.cluster is c, which is not among clusters[].name",
        ),
        ({"cluster": "a", "user": "c"}, "contexts[].context.user is c, which is not among users[].name"),
        ({"cluster": "a", "user": 5}, "contexts[].context.user is not text: put it in quotes"),
    ],
)
def test_a_context_without_its_cluster_or_user_is_refused(folder: Path, context: Entry, fault: str) -> None:
    file = write(folder, contexts=[{"name": "laptop", "context": context}])

    assert faults(file, folder) == [fault]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "Deployment"}, "its kind is Deployment"),
        ({"clusters": {"a": {}}}, "clusters is not a list"),
        ({"users": [{"name": 5}]}, "users[].name is not text"),
        (
            {"clusters": [{"name": "a", "cluster": SERVER}] * 2},
            "it has two clusters with the name a: remove one",
        ),
    ],
)
def test_what_is_no_kube_config_is_refused(folder: Path, change: Entry, reason: str) -> None:
    assert refusal(write(folder, **change), folder) == (
        f"mern:cluster.kubeconfig: config is not a kube config: {reason}"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"clusters:\n  - token: {PASSWORD}: {PASSWORD}\n", ": its line 2 is not YAML"),
        ("\ttoken: a", ": its line 1 is not YAML"),
        ("", ""),
        ("a: 1", ""),
        ("[" * 3000, ""),
    ],
)
def test_a_text_that_is_no_kube_config_is_not_quoted(folder: Path, text: str, reason: str) -> None:
    (folder / "config").write_text(text)

    remedy = "\n      pulumi config set --path 'mern:cluster.kubeconfig' PATH --stack shop"
    assert refusal(f"{folder}/config", folder) == (
        f"mern:cluster.kubeconfig: config is not a kube config{reason or remedy}"
    )


def test_of_several_documents_the_first_is_read_and_a_date_is_text(folder: Path) -> None:
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"since": "2026-11-28"}}
    file = Path(write(folder, SERVER | {"extensions": [extension]}, {"token": "2026-11-28"}))
    file.write_text(file.read_text().replace("'", "") + "---\nkind: Other\n")

    assert read(str(file)) == (SERVER | {"extensions": [extension]}, {"token": "2026-11-28"})


def test_a_kube_config_that_powershell_wrote_is_read(folder: Path) -> None:
    file = Path(write(folder))
    file.write_text(file.read_text(), encoding="utf-16")

    assert read(str(file))[0] == SERVER


def test_a_variable_that_names_no_proxy_is_refused_before_the_provider_is_registered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ClusterSettings(kubeconfig=write(folder), context="laptop")
    monkeypatch.setenv("HTTPS_PROXY", f"ftp://me:{PASSWORD}@proxy")
    monkeypatch.setenv("NO_PROXY", "")

    with pytest.raises(pulumi.RunError, match=r"^HTTPS_PROXY is no URL of a proxy$"):
        connect(settings, None, StackState())
