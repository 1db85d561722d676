"""What a user is told for a wrong setting: real cases, and docs/bad-input.md made from them.

`python -m tests.bad_input` writes the file anew.
"""

import itertools
import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pulumi
import yaml

from components import mern_application
from components.cluster import connect
from components.release import StackState
from components.release.values import ABSENT, get, merged
from sandbox.engine import PROJECT, Engine
from sandbox.tools import HELM, PULUMI, prepare
from settings import ClusterSettings, Settings
from settings.reading import _unquoted_text
from tests import missing_in_aws, remedies
from tests.chart.rendering import CREDENTIALS, Chart
from tests.engine.conftest import share_program

DOC = PROJECT / "docs/bad-input.md"
STACK = "staging"
HIDDEN = "hidden-credential"
"""In every credential of these cases, so that tests can look whether it shows."""

FIRST_KEYS = {
    "cluster": "eksClusterName",
    "namespace": "name",
    "release": "timeout",
    "pythonScript": "roleArn",
    "values": "podSecurity",
}
"""What a user writes for KEY in a command that is printed."""
VALUES_OF = {
    "aws.accountId": "111111111111",
    "aws.region": "eu-central-1",
    "aws.roles.path": "/teams/shop/",
    "aws.roles.permissionsBoundary": "arn:aws:iam::111111111111:policy/limit",
    "checks.subnets": "false",
    "cluster.context": "laptop",
    "cluster.eksClusterName": "staging",
    "cluster.movesFrom": "8d3c",
    "cluster.kubeconfig": "~/.kube/config",
    "imageTag": "1.0",
    "loadBalancerController.chartRepository": "https://aws.github.io/eks-charts",
    "loadBalancerController.identity": "irsa",
    "loadBalancerController.mode": "none",
    "namespace.access.clusterRole": "mern-environment",
    "namespace.access.group": "mern:environments",
    "namespace.labels.team": "web",
    "namespace.mode": "existing",
    "namespace.name": "shop",
    "namespace.protect": "false",
    "namespace.quota.pods": "10",
    "namespace.quota.requests.memory": "2Gi",
    "pythonScript.roleArn": "arn:aws:iam::111111111111:role/etl",
    "release.dryRun": "true",
    "release.showObjects": "false",
    "release.timeout": "600",
    "release.unlockRevision": "1",
    "values.podSecurity": "baseline",
}
"""What a user writes for VALUE."""

Env = Mapping[str, str | None]
NO_ENV: Env = {}

RIGHT = {
    "mern:cluster": "{eksClusterName: staging}",
    "mern:aws": '{accountId: "111111111111", region: eu-central-1}',
    "mern:namespace": "{name: mern-staging}",
    "mern:mongodbUri": f"{{secure: mongodb://{HIDDEN}}}",
    "mern:awsAccessKeyId": f"{{secure: {HIDDEN}}}",
    "mern:awsSecretAccessKey": f"{{secure: {HIDDEN}}}",
}
"""A config without fault; each case changes one thing of it."""

# ---- read by the program; `without` takes a key away, `{secure: …}` is a value that the file encrypts

SETTINGS = """
without mern:cluster
without mern:namespace
without mern:mongodbUri
without mern:awsSecretAccessKey
without mern:aws
mern:clustre: {eksClusterName: staging}
mern:color: blue
mern:cluster.eksClusterName: staging
mern:release: {timout: 60}
mern:release: {color: blue}
mern:release: {time.out: 60}
mern:cluster: staging
mern:cluster: [staging]
mern:cluster: {}
mern:cluster: {kubeconfig: ~/.kube/config}
mern:cluster: {eksClusterName: staging, context: laptop}
mern:cluster: {eksClusterName: staging, kubeconfig: ~/.kube/config, context: laptop}
mern:cluster: {eksClusterName: "my cluster"}
mern:cluster: {kubeconfig: "", context: laptop}
mern:aws: {accountId: "1111", region: eu-central-1}
mern:aws: {accountId: "111111111111", region: Frankfurt}
mern:aws: {region: eu-central-1}
mern:aws: {accountId: "111111111111", region: eu-central-1, roles: {path: teams}}
mern:aws: {accountId: "111111111111", region: eu-central-1, roles: {permissionsBoundary: limit}}
mern:aws: {accountId: "111111111111", region: eu-central-1, tags: {"aws:team": shop}}
mern:aws: {accountId: "111111111111", region: eu-central-1, tags: {team: shop, Team: web}}
mern:namespace: {}
mern:namespace: {name: My_Shop}
mern:namespace: {name: a-name-that-is-longer-than-the-sixty-three-characters-of-kubernetes}
mern:namespace: {name: 5}
mern:namespace: {name: shop, mode: crate}
mern:namespace: {name: shop, protect: "yes"}
mern:namespace: {name: shop, labels: [team]}
mern:namespace: {name: shop, labels: {team: 5}}
mern:namespace: {name: shop, labels: {team: "shop and web"}}
mern:namespace: {name: shop, labels: {"the team": shop}}
mern:namespace: {name: shop, quota: 10}
mern:namespace: {name: shop, quota: {pods: 10}}
mern:namespace: {name: shop, quota: {requests.memory: 2GB}}
mern:namespace: {name: shop, quota: {"requests memory": 2Gi}}
mern:namespace: {name: shop, access: mern-environment}
mern:namespace: {name: shop, access: {clusterRole: mern-environment}}
mern:namespace: {name: shop, access: {clusterRole: mern-environment, group: ""}}
mern:namespace: {name: shop, access: {clusterRole: mern-environment, groups: [mern]}}
mern:values: [1]
mern:values: {mernServer: {mongodbUri: mongodb://hidden-credential}}
mern:values: {mernServer: {secrets: {JWT_SECRET: hidden-credential}}}
mern:values: {secure: hidden-credential}
mern:values: {mernServer: {existingSecret: a}, pythonScript: {existingSecret: b}}
mern:imageTag: "1.0 beta"
mern:imageTag: {secure: "1.0"}
mern:mongodbUri: mongodb://hidden-credential
mern:mongodbUri: {secure: ""}
mern:serverSecrets: {secure: hidden-credential}
mern:serverSecrets: {JWT-SECRET: {secure: hidden-credential}}
mern:serverSecrets: {JWT_SECRET: {secure: ""}}
mern:serverSecrets: {JWT_SECRET: hidden-credential}
mern:awsAccessKeyId: {secure: "hidden-credential\\r"}
mern:awsSecretAccessKey: {secure: " hidden-credential\\n"}
mern:mongodbUri: {secure: "\\u200Bmongodb://hidden-credential"}
mern:serverSecrets: {JWT_SECRET: {secure: "hidden-credential\\n"}}
mern:serverSecrets: {JWT_SECRET: {secure: "\\uFEFFhidden-credential\\xA0"}}
mern:serverSecrets: {JWT_SECRET: {secure: " "}}
mern:pythonScript: {roleArn: etl}
mern:pythonScript: {}
mern:pythonScript: {identity: pod-identity}
mern:pythonScript: {policy: "*"}
mern:pythonScript: {roleArn: "arn:aws:iam::111111111111:role/etl", policy: {}}
mern:loadBalancerController: {mode: yes-please}
mern:loadBalancerController: {identity: keys}
mern:loadBalancerController: {chartRepository: eks-charts}
mern:loadBalancerController: {values: {clusterName: other, serviceAccount: mine}}
mern:checks: {subnets: never}
mern:release: {timeout: 0}
mern:release: {timeout: 100000}
mern:release: {timeout: "600"}
mern:release: {timeout: 10.5}
mern:release: {showObjects: "no"}
mern:release: {dryRun: 1}
mern:release: {unlockRevision: 0}
mern:release: {leave: Deployment/mern-server}
"""
LAPTOP = "mern:cluster: {kubeconfig: ~/.kube/config, context: laptop}"
KEYS_AND_ROLE = 'mern:pythonScript: {roleArn: "arn:aws:iam::111111111111:role/etl"}'
NEEDS_EKS = """
mern:loadBalancerController: {mode: install}
mern:pythonScript: {policy: {Version: "2012-10-17", Statement: []}}
mern:pythonScript: {roleArn: "arn:aws:iam::111111111111:role/etl", identity: pod-identity}
"""

IMAGES = """
mernServer
mernServer=
Server=ghcr.io/shop/server:1.4.2
mernServer=ghcr.io/shop/server
mernServer=ghcr.io/Shop/server:1.4.2
mernServer=https://ghcr.io/shop/server:1.4.2
mernServer=ghcr.io/shop/server:1.4.2,mernClient=ghcr.io/shop/client:1.4.2
mernServer=ghcr.io/shop/server@sha256:0123abc
mernServer=ghcr.io/shop/server@sha512:0123abc
mernServer=ghcr.io/shop/server:1.4.2
mernServer=sha256:{} mernServer=sha256:{}
""".format("0" * 64, "1" * 64)
"""Read by the program with a right config; each line is what `--image` is given."""

# ---- the same by way of a file, because YAML or the engine makes something else of what is written

MISREAD = [
    "mern:imageTag: 1.10",
    "mern:imageTag: 1e3",
    "mern:imageTag: 0123",
    "mern:imageTag: 2024-11-24",
    "mern:imageTag:",
    "mern:aws: {accountId: 111111111111, region: eu-central-1}",
    "mern:aws: {accountId: 012345670123, region: eu-central-1}",
    "mern:namespace: {name: 2024-11-24}",
    "mern:namespace: {name: no, protect: no}",
    "mern:namespace: {name: null}",
    "mern:values: {mernServer: {env: {RELEASED: 2024-11-24}}}",
    "mern:values: {ingress: {annotations: {example.com/since: 2024-11-24}}}",
    "mern:values: {mernServer: {tolerations: [{key: 2024-11-24}]}}",
    "mern:checks.subnets: 2024-11-24",
    "mern:pythonScript: {policy: {Version: 2012-10-17, Statement: []}}",
    "mern:release: {timeout: 10m}",
    "mern:release: {timeout: 5e2, showObjects: off}",
    "mern:release:",
    "mern:release {timeout: 60}",
]
"""The program reads it, and refuses it."""

UNREADABLE = [
    "mern:release: {timeout: 60}\nmern:release: {timeout: 90}",
    "mern:release: {timeout: 60, timeout: 90}",
    "\tmern:release: {timeout: 60}",
    "mern:release: {timeout: .inf}",
    "mern:release: {timeout: 60",
    "mern:imageTag: {secure: broken}",
]
WHOLE_FILES = [
    "config:\n- mern:imageTag: 1.0.0",
    "config: none",
    "<<<<<<< HEAD\nconfig: {}\n=======",
    "- a list",
]
"""The command line refuses it, before the program runs."""

# ---- refused by the chart

VALUES = """
mernCleint: {}
podSecurity: none
mernServer: null
mernServer: 5
mernServer: {replicas: "3"}
mernServer: {replicas: -1}
mernServer: {replicas: 20000}
mernServer: {replicas: 1.5}
mernServer: {replicaCount: 3}
mernServer: {image: {tag: 1.1}}
mernServer: {image: {tag: "1.0 beta"}}
mernServer: {image: {repository: "registry.example/server:1.0"}}
mernServer: {image: {tag: "1.0", digest: "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}
mernServer: {containerPort: 70000}
mernServer: {env: {PORT: 5000}}
mernServer: {env: {NODE-ENV: test}}
mernServer: {env: [A=b]}
mernServer: {env: {MONGODB_URI: a}}
mernServer: {env: {JWT_SECRET: a}}
mernServer: {secrets: {MONGODB_URI: a}}
mernServer: {env: {A: b}, extraEnv: [{name: A, value: c}]}
mernServer: {extraEnv: [{name: A}]}
mernServer: {extraEnv: [{name: A, value: b, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}
mernServer: {existingSecret: A_B}
mernServer: {existingSecret: shop}
mernServer: {existingSecretChecksum: abc}
mernServer: {mongodbUri: ""}
mernServer: {mongodbUri: localhost}
mernServer: {resources: {limits: {memory: 256MB}}}
mernServer: {resources: {requests: {memory: 1Gi}}}
mernServer: {volumes: [{name: a, emptyDir: {}}, {name: a, emptyDir: {}}]}
mernServer: {volumes: [{name: a, hostPath: {path: /}}]}
mernServer: {volumeMounts: [{name: a, mountPath: /a}]}
mernServer: {volumes: [{name: a, emptyDir: {}}], volumeMounts: [{name: a, mountPath: /a}, {name: a, mountPath: /a}]}
mernServer: {tolerations: [{operator: Equal}]}
mernServer: {tolerations: [{key: a, operator: Exists, value: b}]}
mernServer: {tolerations: [{key: a, effect: NoSchedule, tolerationSeconds: 5}]}
mernServer: {networkPolicy: {enabled: true, egress: [{to: []}]}}
mernServer: {autoscaling: {enabled: true, minReplicas: 9}}
mernServer: {autoscaling: {enabled: true, targetCPUUtilizationPercentage: null}}
mernServer: {autoscaling: {enabled: true}, resources: {requests: {cpu: null}, limits: {cpu: null}}}
mernServer: {termination: {preStopSleepSeconds: 10}}
mernServer: {termination: {gracePeriodSeconds: 30}}
mernServer: {rollingUpdate: {maxUnavailable: 1}}
mernServer: {rollingUpdate: {maxSurge: 0}}
mernServer: {rollingUpdate: {maxSurge: 200%}}
mernServer: {podDisruptionBudget: {enabled: false}}
{ingress: {zeroDowntime: {enabled: false}}, mernServer: {podDisruptionBudget: {minAvailable: 1}}}
{ingress: {zeroDowntime: {enabled: false}}, mernServer: {podDisruptionBudget: {maxUnavailable: 0}}}
{ingress: {zeroDowntime: {enabled: false}}, mernServer: {podDisruptionBudget: {maxUnavailable: null, minAvailable: 2}}}
mernServer: {service: {annotations: {alb.ingress.kubernetes.io/healthcheck-path: /up}}}
mernServer: {service: {healthCheck: {timeoutSeconds: 20}}}
pythonScript: {schedule: hourly}
pythonScript: {awsSecretAccessKey: ""}
pythonScript: {serviceAccount: {annotations: {eks.amazonaws.com/role-arn: etl}}}
ingress: {hosts: [shop.example.com, shop.example.com]}
ingress: {serverPaths: []}
ingress: {annotations: {alb.ingress.kubernetes.io/scheme: internal}}
ingress: {healthCheck: {timeoutSeconds: 20}}
ingress: {tls: {enabled: true}}
ingress: {group: {order: 1}}
ingress: {targetType: instance}
ingress: {targetGroupAttributes: {deregistration_delay.timeout_seconds: "10"}}
"""  # noqa: E501


@dataclass(frozen=True)
class Case:
    """One wrong input."""

    written: str
    """What was set, as a user writes it."""
    message: tuple[str, ...]
    """The lines that a user reads."""

    @property
    def advice(self) -> str:
        """What mends it, where the message is Pulumi's own and does not say so."""
        text = "\n".join(self.message)
        return next((advice for part, advice in ADVICE.items() if part in text), "")


ADVICE = {
    "validating stack config": "what stands after `secure:` was cut or edited: set that key anew",
    "no stack named": "`pulumi stack ls` shows those there are",
    "passphrase must be set": "the stack's passphrase belongs there",
    "incorrect passphrase": "the stack's own belongs into `PULUMI_CONFIG_PASSPHRASE`, or the path of a file "
    "with it into `PULUMI_CONFIG_PASSPHRASE_FILE`",
    "already defined": "remove one of the two",
    "cannot unmarshal": "below `config:` stand keys and values, `mern:imageTag: 1.0.0`",
    "expected project to be": "the file starts with `config:`",
    "+Inf": "this number has no end",
    "yaml: line": "mend the YAML near that line, or take the file from Git",
}


def lines(text: str) -> Iterator[str]:
    yield from text.strip().splitlines()


# ---- running the cases


def settings_cases() -> list[Case]:
    """Return the cases of config that the program reads and refuses."""
    return [_settings_case(text) for text in settings_texts()]


def image_cases() -> list[Case]:
    """Return the cases of wrong images of a run."""
    right = {key: yaml.safe_load(value) for key, value in RIGHT.items()}
    return [
        Case(f'--image "{text}"', _refusal(lambda text=text: parse(right, run_images=text)))
        for text in lines(IMAGES)
    ]


def settings_texts() -> list[str]:
    """Return the configs that the program refuses, as a user writes them."""
    laptop = [f"{LAPTOP}\n{text}" for text in lines(NEEDS_EKS)]
    return [*lines(SETTINGS), KEYS_AND_ROLE, *laptop]


def _left_out(text: str) -> set[str]:
    """Return the keys of a right config that a case goes without: what it sets, and keys beside a role."""
    keys = {key for key in RIGHT if f"{key}:" in text or text == f"without {key}"}
    if "mern:pythonScript:" in text and text != KEYS_AND_ROLE:
        keys |= {"mern:awsAccessKeyId", "mern:awsSecretAccessKey"}
    return keys


def written(text: str) -> dict[str, Any]:
    """Return the config of a stack file that has what `text` says, and is right in all else."""
    left_out = _left_out(text)
    right = {key: yaml.safe_load(value) for key, value in RIGHT.items() if key not in left_out}
    return right if text.startswith("without ") else right | yaml.safe_load(text)


def parse(config: Mapping[str, Any], run_images: str = "") -> Settings:
    """Return the settings in the config of a stack file, in which `{secure: …}` holds the text itself."""
    secret = {key.removeprefix("mern:") for key, value in config.items() if '{"secure"' in json.dumps(value)}
    texts = {key.removeprefix("mern:"): _as_text(_opened(value)) for key, value in config.items()}
    return Settings.parse(texts, secret, STACK, run_images=run_images)


def _settings_case(text: str) -> Case:
    return Case(_shown(text), _refusal(lambda: parse(written(text))))


def _opened(value: Any) -> Any:
    """Return a value as the engine hands it over: decrypted."""
    if isinstance(value, dict):
        return value["secure"] if set(value) == {"secure"} else {k: _opened(v) for k, v in value.items()}
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shown(text: str) -> str:
    return re.sub(rf"\{{secure: ({HIDDEN}|mongodb://{HIDDEN})\}}", "{secure: …}", text).replace(HIDDEN, "…")


def _refusal(call: Any) -> tuple[str, ...]:
    try:
        call()
    except pulumi.RunError as error:
        said = str(error).splitlines()
        return tuple(
            line.strip() for line in said if not line.startswith(("1 fault", "2 faults", "3 faults"))
        )
    raise AssertionError("this was accepted")


def together() -> list[str]:
    """Return configs with every command that the program prints, in as few files as can be: one case of each
    key, and those that are about several keys apart."""
    rounds: list[dict[str, str]] = []
    apart, seen = [], set[str]()
    for text in [*settings_texts(), *MISREAD]:
        if text not in MISREAD:
            commands = set(remedies.commands_in("\n".join(_settings_case(text).message)))
            if commands <= seen:
                continue
            seen |= commands
        if "without " in text or "\n" in text or "existingSecret" in text or text == KEYS_AND_ROLE:
            apart.append(text)
            continue
        file = next((file for file in rounds if _key(text) not in file), None)
        if file is None:
            rounds.append(file := {})
        file[_key(text)] = text
    return [*("\n".join(file.values()) for file in rounds), *apart]


def path_in(command: str) -> tuple[str | int, ...]:
    """Return the keys that a printed command sets or removes, as a shell and Pulumi read it."""
    words = shlex.split(command)
    [key] = {word.removeprefix("mern:") for word in words if word.startswith("mern:")}
    return _path(key) if "--path" in words else (key,)


def _path(text: str) -> tuple[str | int, ...]:
    """Return the keys that Pulumi takes the text after --path for: its SDK, resource/properties_path.go."""
    keys: list[str | int] = []
    while text:
        part = re.match(r'\["((?:\\"|\\(?!")|[^"\\])*)"\]|\[(\d+)\]|\.?([^.[]+)', text, re.DOTALL)
        assert part, f"Pulumi does not understand the rest of this path: {text}"
        quoted, index, name = part.groups()
        keys.append(int(index) if index else name or quoted.replace('\\"', '"'))
        text = text[part.end() :]
    return tuple(keys)


class StackFiles:
    """A stack file of a real stack of this project, read by the real command line and program."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.engine = Engine(folder=folder)
        self.folder = folder / "project"
        self.folder.mkdir(parents=True)
        share_program(self.folder)
        self.engine.tools.symlink_to(tools)
        (folder / "state").mkdir()
        self.engine.passphrase.write_text("right")
        self.file = self.folder / f"Pulumi.{STACK}.yaml"
        self.pulumi("stack", "init", STACK)
        self.salt = self.file.read_text()
        secrets = [key for key, value in RIGHT.items() if "secure" in value]
        self.pulumi("config", "set-all", "--stack", STACK, *(f"--secret={key}={HIDDEN}" for key in secrets))
        self.encrypted = yaml.safe_load(self.file.read_text())["config"]
        self.pulumi("config", "set-all", "--stack", STACK, "--secret=mern:a=1.0", "--secret=mern:b=")
        config = yaml.safe_load(self.file.read_text())["config"]
        texts = {HIDDEN: "mern:mongodbUri", "1.0": "mern:a", "": "mern:b"}
        self.ciphertexts = {text: config[key]["secure"] for text, key in texts.items()}

    def _encrypted(self, written: str) -> str:
        """Return the ciphertext of a text as it is written in YAML's double quotes."""
        text = yaml.safe_load(f'"{written}"')
        if text not in self.ciphertexts:
            self.write("")
            self.pulumi("config", "set", "--stack", STACK, "--secret", "mern:c", "--", text)
            self.ciphertexts[text] = yaml.safe_load(self.file.read_text())["config"]["mern:c"]["secure"]
        return self.ciphertexts[text]

    def pulumi(self, *command: str, env: Env = NO_ENV) -> str:
        """Return all that the command says; a variable that is None is not set."""
        pulumi = [str(self.engine.tools / "pulumi"), "--non-interactive", "--color", "never"]
        return self._output([*pulumi, *command], env)

    def paste(self, command: str) -> str:
        """Have a shell run a command that was printed, with values for its words in capitals, and return
        what it says."""
        words = {}
        if "mern:" in command:
            first = FIRST_KEYS.get(str(path_in(command)[0]), "")
            path = ".".join(map(str, path_in(command))).replace("KEY", first)
            value = VALUES_OF.get(path, "value")
            words = {"KEY": first, "NAME": "JWT_SECRET" if "Secrets" in path else value}
            words |= dict.fromkeys(("VALUE", "PATH", "CONTEXT", "URL", "TAG", "ARN"), value)
        env = {**os.environ, **self.engine.environment()}
        env["PATH"] = f"{self.engine.tools}:{env['PATH']}"
        return remedies.run(command, folder=self.folder, env=env, given=f"{HIDDEN}-new", **words)

    def says(self, command: str) -> bool:
        """Return whether the stack file says what a command sets, or no longer what it removes."""
        is_there = get(yaml.safe_load(self.file.read_text())["config"], self._path_of(command)) is not ABSENT
        return is_there == (" set " in command)

    @staticmethod
    def _path_of(command: str) -> tuple[str | int, ...]:
        key, *below = path_in(command)
        return (f"mern:{key}", *below)

    def write(self, config: str) -> None:
        """Have the stack file say this beside or in place of the right."""
        self.file.write_text(self._with_the_right(config))

    def mended(self, config: str) -> None:
        """Run the commands that the program prints for a config, until it prints none.

        Raises:
            AssertionError: a command does not work, or its fault is still there after it.
        """
        config = re.sub(r'secure: "?([^"}]*)"?}', lambda it: f"secure: {self._encrypted(it[1])}}}", config)
        self.write(config)
        seen: set[tuple[str, str]] = set()
        while faults := self.faults_in_file():
            assert not seen & set(faults), (config, seen & set(faults))
            seen |= set(faults)
            for _, command in faults:
                self.paste(command)

    def faults_in_file(self) -> list[tuple[str, str]]:
        """Return each fault of the stack file, as the engine reads it, with the command that mends it."""
        read = json.loads(
            re.sub(r"\A[^{]*", "", self.pulumi("config", "--stack", STACK, "--show-secrets", "--json"))
        )
        texts = {key.removeprefix("mern:"): item["value"] for key, item in read.items()}
        secret = {key.removeprefix("mern:") for key, item in read.items() if item["secret"]}
        try:
            Settings.parse(texts, secret, STACK, _unquoted_text(self.file, "mern:imageTag"))
        except pulumi.RunError as error:
            _, *lines = [line.strip() for line in str(error).splitlines()]
            return list(zip(lines[::2], lines[1::2], strict=True))
        return []

    def faults(self, config: str | None = None) -> list[tuple[str, str]]:
        """Preview, and return each fault that the program reports, with the command that mends it.

        Args:
            config: what the stack file says beside or in place of the right; None: the file stays as it is.
        """
        if config is not None:
            self.write(config)
        said = self._said("preview", "--stack", STACK)
        title, *lines = itertools.dropwhile(lambda line: not line.startswith("error: "), said)
        faults = list(itertools.takewhile(lambda line: line.startswith(("mern:", "pulumi ")), lines))
        assert re.match(rf"error: {len(faults) // 2} faults? in the config", title), said
        return list(zip(faults[::2], faults[1::2], strict=True))

    def _output(self, command: list[str], env: Env) -> str:
        variables = {**os.environ, **self.engine.environment(), **env}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={name: text for name, text in variables.items() if text is not None},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout

    def cases(self) -> list[Case]:
        """Return the cases of a stack file with faults."""
        found = self._misread()
        return [
            *(Case(text, found[text]) for text in MISREAD),
            *(self._unreadable(text, self._with_the_right(text)) for text in UNREADABLE),
            *(self._unreadable(text, f"{text}\n") for text in WHOLE_FILES),
        ]

    def commands(self) -> list[Case]:
        """Return the cases of a wrong command, with a right stack file."""
        self.write("")
        preview = ("preview", "--stack", STACK)
        none: Env = {"PULUMI_CONFIG_PASSPHRASE_FILE": None}
        wrong: Env = {**none, "PULUMI_CONFIG_PASSPHRASE": "wrong"}
        shown = f"pulumi {' '.join(preview)}"
        found = [
            Case("pulumi preview --stack stagin", self._said("preview", "--stack", "stagin")),
            Case(f"{shown}, with another passphrase than the stack's", self._said(*preview, env=wrong)),
            Case(f"{shown}, without a passphrase", self._said(*preview, env=none)),
        ]
        (self.folder / "Pulumi.yaml").write_text("name: mern\nruntime: [")
        return [*found, Case("a broken Pulumi.yaml", self._said("preview", "--stack", STACK))]

    def _misread(self) -> dict[str, tuple[str, ...]]:
        """Return what the program says to each of MISREAD.

        All faults are reported together: one file has a case of each key.
        """
        found: dict[str, tuple[str, ...]] = {}
        left = list(MISREAD)
        while left:
            together = {_key(text): text for text in reversed(left)}
            faults = self.faults("\n".join(together.values()))
            assert len(faults) == len(together), faults
            for key, text in together.items():
                about = re.compile(rf"{re.escape(key)}(\.\S+)? (is|should) ")
                found[text] = next(fault for fault in faults if about.match(fault[0]))
            left = [text for text in left if text not in found]
        return found

    def _unreadable(self, text: str, file: str) -> Case:
        self.file.write_text(file)
        return Case(text.replace("\t", "⇥"), self._said("preview", "--stack", STACK))

    def _said(self, *command: str, env: Env = NO_ENV) -> tuple[str, ...]:
        text = self.pulumi(*command, env=env).replace(f"{self.folder}/", "")
        return tuple(line.strip() for line in text.splitlines() if line.strip())

    def _with_the_right(self, text: str) -> str:
        """Return a stack file with the right config, but for what `text` is about."""
        right = {**RIGHT, **{key: json.dumps(value) for key, value in self.encrypted.items()}}
        left_out = _left_out(text)
        given = [f"{key}: {value}" for key, value in right.items() if key not in left_out]
        entries = "".join(
            f"  {line}\n" for line in (*given, *([] if text.startswith("without ") else text.splitlines()))
        )
        return f"{self.salt}config:\n{entries}"


def _key(text: str) -> str:
    """Return the key that a case is about."""
    return re.split(r":(?= |$)", text)[0]


def short_timeout(chart: Chart) -> Case:
    """Return the case of a timeout that is too short for the chart's objects."""
    args = SimpleNamespace(timeout=60)
    plan: Any = SimpleNamespace(objects=chart.render().objects, args=args)
    with mock.patch("pulumi.get_stack", lambda: STACK):
        return Case(
            "mern:release: {timeout: 60}",
            _refusal(lambda: mern_application._require_sufficient_timeout(plan)),
        )


KUBECONFIG = (
    "contexts: [{name: laptop, context: {cluster: a, user: b}}, {name: half, context: {cluster: b}}]\n"
)
KUBECONFIG += "clusters: [{name: a, cluster: {server: x, certificate-authority: ca.crt}}]\nusers: []\n"


def kubeconfig_cases() -> Iterator[Case]:
    """Yield the cases of a wrong kube config, which `mern:cluster` names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text").write_text("no: [YAML")
        (folder / "binary").write_bytes(b"\xff\xfe\x00")
        (folder / "config").write_text(KUBECONFIG)
        for file, context in (
            *(("missing", "laptop"), ("text", "laptop"), ("binary", "laptop")),
            *(("config", "desk"), ("config", "half"), ("config", "laptop")),
        ):
            cluster = ClusterSettings(kubeconfig=f"{folder}/{file}", context=context)
            with mock.patch("pulumi.get_stack", lambda: STACK):
                said = _refusal(lambda cluster=cluster: connect(cluster, None, StackState()))
            yield Case(
                f"mern:cluster: {{kubeconfig: {file}, context: {context}}}",
                tuple(line.replace(f"{folder}/", "") for line in said),
            )


def chart_cases(chart: Chart) -> list[Case]:
    """Return the cases of values that Helm refuses to render."""
    return [Case(text, chart_refusal(chart, yaml.safe_load(text))) for text in lines(VALUES)]


def chart_refusal(chart: Chart, values: Any) -> tuple[str, ...]:
    whole = not isinstance(values.get("mernServer", {}), dict)
    text = chart.refusal(values if whole else merged(CREDENTIALS, values), credentials=False)
    said = [line.strip() for line in text.splitlines()]
    return tuple(line for line in said if line.startswith("- ")) or tuple(filter(None, said))


# ---- the table

INTRODUCTION = """\
# What is said to bad input

Each row is one wrong setting in an otherwise right stack, and what `pulumi preview` and `pulumi up` say to it
before anything is changed. All faults of a config are reported together, under a line that counts them, each
with the command that mends it (to which `--stack staging` belongs). No message holds a credential. What
follows an arrow is said only here: there the message is Pulumi's own, before the program runs.

Tests run each command as it is printed, with values for its words in capitals: those of Pulumi by Pulumi,
those of AWS by the AWS CLI against a moto server. Not run are `eksctl` and `aws sso login`; `kubectl` and
`aws` only where the machine has them.

Made from the real cases by `python -m tests.bad_input`; a test holds it to them.
"""


def sections(folder: Path, tools: Path) -> dict[str, list[Case]]:
    """Return the cases by heading, all run anew."""
    files, chart = StackFiles(folder, tools), Chart(str(tools / "helm"))
    return {
        "The stack's config": settings_cases(),
        "What YAML makes of it": files.cases(),
        "The images of a run": image_cases(),
        "The command": files.commands(),
        "The kube config": list(kubeconfig_cases()),
        "AWS, EKS and the load balancer controller": [
            Case(written, message) for written, message in missing_in_aws.rows(folder)
        ],
        "The chart's values, in `mern:values`": [*chart_cases(chart), short_timeout(chart)],
    }


def document(found: dict[str, list[Case]]) -> str:
    """Return the text of docs/bad-input.md."""
    parts = [INTRODUCTION]
    for heading, cases in found.items():
        rows = []
        for case in cases:
            advice = f"<br>→ {case.advice}" if case.advice else ""
            rows.append(f"| {_cell(case.written.splitlines())} | {_cell(case.message)}{advice} |\n")
        parts.append(f"\n## {heading}\n\n| set | said |\n| --- | --- |\n{''.join(rows)}")
    return "".join(parts)


def _cell(texts: Iterable[str]) -> str:
    shown = (re.sub(rf" --stack {STACK}(?= &&|$)", "", text).replace("|", "\\|") for text in texts)
    return "<br>".join(f"`` {text} ``" if "`" in text else f"`{text}`" for text in shown)


def main() -> None:
    tools = PROJECT / ".sandbox/bin"
    prepare(tools, [PULUMI, HELM])
    with tempfile.TemporaryDirectory() as folder:
        DOC.write_text(document(sections(Path(folder), tools)))
    print(f"{DOC.relative_to(PROJECT)} is written.")


if __name__ == "__main__":
    main()
