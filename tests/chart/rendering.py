"""The chart as its user sees it: values go in, Kubernetes objects or a refusal come out."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.release.values import merged

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # fifteen times as fast, where there is one
CHART = Path(__file__).parents[2] / "chart"

Values = Mapping[str, Any]
Object = dict[str, Any]

# What no deployment goes without, made up in one place so that tests can look where it turns up.
CREDENTIALS: dict[str, dict[str, Any]] = {
    "mernServer": {
        "mongodbUri": "mongodb://server:pw-of-server@mongo.example/mern",
        "secrets": {"JWT_SECRET": "value-of-jwt-secret"},
    },
    "pythonScript": {
        "mongodbUri": "mongodb://script:pw-of-script@mongo.example/mern",
        "awsAccessKeyId": "value-of-key-id",
        "awsSecretAccessKey": "value-of-secret-key",
    },
}


class Quoting(yaml.SafeDumper):
    """Writes every string in quotes: Python leaves `y` bare, which Helm reads as true."""


Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def decoded(secret: Object) -> dict[str, str]:
    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}


def leaves(value: Any) -> Iterator[Any]:
    """Every key and every scalar of an object."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield key
            yield from leaves(below)
    elif isinstance(value, list):
        for below in value:
            yield from leaves(below)
    else:
        yield value


@dataclass(frozen=True)
class Rendered:
    objects: list[Object]

    def find(self, kind: str, name: str) -> Object | None:
        found = [o for o in self.objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
        assert len(found) <= 1, f"{kind} {name} is rendered {len(found)} times"
        return found[0] if found else None

    def one(self, kind: str, name: str) -> Object:
        found = self.find(kind, name)
        assert found is not None, f"no {kind} {name} among {self.names()}"
        return found

    def kind(self, kind: str) -> list[Object]:
        return [o for o in self.objects if o["kind"] == kind]

    def names(self) -> set[str]:
        return {f"{o['kind']}/{o['metadata']['name']}" for o in self.objects}

    def pod(self, kind: str, name: str) -> Object:
        """The pod template of a Deployment, CronJob or Job, or a Pod itself."""
        if kind == "Pod":
            return self.one(kind, name)
        spec = self.one(kind, name)["spec"]
        template: Object = (spec["jobTemplate"]["spec"] if kind == "CronJob" else spec)["template"]
        return template

    def pods(self) -> list[Object]:
        kinds = ("Deployment", "CronJob", "Job", "Pod")
        return [self.pod(o["kind"], o["metadata"]["name"]) for o in self.objects if o["kind"] in kinds]


@dataclass(frozen=True)
class Chart:
    helm: str

    def template(
        self, values: Values, release: str, namespace: str, flags: tuple[str, ...]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.helm, "template", release, CHART, "--namespace", namespace, "-f", "-", *flags],
            input=yaml.dump(dict(values), Dumper=Quoting),
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.helm, *arguments], capture_output=True, text=True, check=False)

    def text(self, values: Values, *flags: str, release: str = "mern", namespace: str = "shop") -> str:
        run = self.template(values, release, namespace, flags)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def render(
        self,
        values: Values | None = None,
        *flags: str,
        release: str = "mern",
        namespace: str = "shop",
        credentials: bool = True,
    ) -> Rendered:
        """The objects, with the credentials given as every deployment gives them."""
        given = merged(CREDENTIALS if credentials else {}, values or {})
        text = self.text(given, *flags, release=release, namespace=namespace)
        return self.parsed(text)

    @staticmethod
    def parsed(text: str) -> Rendered:
        return Rendered([o for o in yaml.load_all(text, LOADER) if o is not None])

    def refusal(self, values: Values | None = None, *, credentials: bool = True) -> str:
        """What Helm says to values that the chart refuses."""
        given = merged(CREDENTIALS if credentials else {}, values or {})
        run = self.template(given, "mern", "shop", ())
        assert run.returncode != 0, "these values were accepted"
        return run.stderr
