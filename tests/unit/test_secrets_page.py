"""The examples of docs/secrets.md fit each other and the program; the page says what else was tried."""

import json
import re
from typing import Any

import yaml

from sandbox.engine import PROJECT
from settings import SECRET_KEYS, Settings

BLOCKS = re.findall(r"```yaml\n(.*?)```", (PROJECT / "docs/secrets.md").read_text(), re.DOTALL)
EXAMPLES: list[dict[str, Any]] = [item for block in BLOCKS for item in yaml.safe_load_all(block)]
OBJECTS = [item for item in EXAMPLES if "kind" in item]
STACK = next(item for item in EXAMPLES if "mern:values" in item.get("config", {}))["config"]
NAMES = {STACK["mern:values"][part]["existingSecret"] for part in ("mernServer", "pythonScript")}


def test_a_stack_whose_secrets_somebody_else_fills_needs_no_credential() -> None:
    production = yaml.safe_load((PROJECT / "Pulumi.production.yaml").read_text())["config"]
    config = {
        key.removeprefix("mern:"): json.dumps(value)
        for key, value in (production | STACK).items()
        if key.startswith("mern:")
    }
    assert Settings.parse(config, set(), "production").mongodb_uri is None


def test_the_operators_make_the_secrets_that_the_stack_names_in_its_namespace() -> None:
    namespace = STACK["mern:namespace"]["name"]
    assert {item["metadata"]["namespace"] for item in OBJECTS} == {namespace}
    made = {item["spec"]["target"]["name"] for item in OBJECTS if item["kind"] == "ExternalSecret"}
    assert made == NAMES
    (store,) = (item for item in OBJECTS if item["kind"] == "SecretStore")
    (account,) = (item for item in OBJECTS if item["kind"] == "ServiceAccount")
    auth = store["spec"]["provider"]["aws"]["auth"]
    assert auth["jwt"]["serviceAccountRef"]["name"] == account["metadata"]["name"]
    (sealed,) = (item for item in OBJECTS if item["kind"] == "SealedSecret")
    assert sealed["metadata"]["name"] in NAMES


def test_the_environment_of_esc_gives_all_credentials() -> None:
    (values,) = (item["values"] for item in EXAMPLES if "values" in item)
    assert values["pulumiConfig"].keys() == {f"mern:{key}" for key in SECRET_KEYS}
