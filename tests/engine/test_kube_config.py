"""The Kubernetes provider and the program's own client read the same from a kube config."""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.engine.conftest import Project
from tests.proxy import run_proxy

PLUGIN = """#!/bin/sh
ps -o comm= -p $PPID >>"$FOLDER/asked"
case "$KUBERNETES_EXEC_INFO" in
*'"tls-server-name":"localhost"'* | *'"tls-server-name": "localhost"'*) exec cat "$FOLDER/credential" ;;
esac
echo "the cluster is missing in $KUBERNETES_EXEC_INFO" >&2
exit 1
"""


def test_a_cluster_behind_a_proxy_under_another_name_with_a_plugin_is_deployed_to(project: Project) -> None:
    """The kube config lies in two files, whose paths are relative; the only credentials are a client
    certificate that the plugin answers."""
    given = yaml.safe_load(project.cluster.kubeconfig.read_text())
    server = given["clusters"][0]["cluster"]
    user = given["users"][0]["user"]
    folder = project.folder / "kube"
    (folder / "bin").mkdir(parents=True)
    (folder / "ca.crt").write_text(Path(server["certificate-authority"]).read_text())
    status = {
        "clientCertificateData": Path(user["client-certificate"]).read_text(),
        "clientKeyData": Path(user["client-key"]).read_text(),
    }
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    (folder / "credential").write_text(json.dumps(credential))
    (folder / "bin/plugin").write_text(PLUGIN)
    (folder / "bin/plugin").chmod(0o755)
    exec_ = {
        "apiVersion": credential["apiVersion"],
        "command": "bin/plugin",
        "env": [{"name": "FOLDER", "value": str(folder)}],
        "provideClusterInfo": True,
        "interactiveMode": "IfAvailable",
    }
    cluster: dict[str, Any] = {
        "server": "https://api.invalid:6443",
        "tls-server-name": "localhost",
        "certificate-authority": "ca.crt",
    }

    def write(cluster: dict[str, Any]) -> None:
        clusters = {"clusters": [{"name": "shop", "cluster": cluster}]}
        context = {"name": "far", "context": {"cluster": "shop", "user": "me"}}
        users = {"users": [{"name": "me", "user": {"exec": exec_}}], "contexts": [context]}
        (folder / "clusters").write_text(yaml.safe_dump(clusters))
        (folder / "users").write_text(yaml.safe_dump(users))

    files = os.pathsep.join(f"kube/{name}" for name in ("missing", "clusters", "users"))
    project.configure(cluster={"kubeconfig": files, "context": "far"})
    with run_proxy(urlsplit(server["server"]).port or 443) as proxy:
        write(cluster | {"proxy-url": f"http://127.0.0.1:{proxy.port}"})
        done = project.up()
        assert done.ok, done.output
        assert "could not be checked" not in done.output
        assert set(proxy.asked) == {"api.invalid:6443"}
        asked = set((folder / "asked").read_text().split())
        assert any("python" in name for name in asked), asked
        assert any("pulumi-resource" in name for name in asked), asked

        # By the variable; the certificate of the authority in the provider's input stays the same.
        proxy.asked.clear()
        write(cluster)
        project.env["HTTPS_PROXY"] = f"http://127.0.0.1:{proxy.port}"
        seen = project.up()
        assert seen.ok, seen.output
        assert "could not be checked" not in seen.output
        assert seen.changes == {("update", "kubernetes cluster")}, seen.output
        assert set(proxy.asked) == {"api.invalid:6443"}

        project.env["NO_PROXY"] = "invalid"
        refused = project.up()
        assert not refused.ok
        assert "the API server at https://api.invalid:6443 does not answer: " in refused.output
