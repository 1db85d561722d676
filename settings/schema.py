"""The JSON schema of a stack file, `Pulumi.STACK.yaml`, by which editors complete, explain and check it.

`python -m settings.schema` makes settings/stack.schema.json anew: from the types of the settings and their
docstrings, the chart's own schema, and the table of values in the chart's README.

The schema knows each key by itself. What keys ask of each other is left to the settings. So is what a stack
file need not hold: credentials are added later, and Pulumi ESC can give any key. It is stricter than the
settings where that helps a reader of the file: a key has its prefix and a value, a number that is meant as
text has quotes, and each text in `mern:serverSecrets` is encrypted.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import griffe
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from components.release.values import Path as ValuePath
from settings.model import CONTROLLER_VALUES, PROJECT, SECRET_VALUES, StackConfig

COMMAND = "python -m settings.schema"
FILE = Path(__file__).with_name("stack.schema.json")
CHART = Path(__file__).parents[1] / "chart"

ENCRYPTED = {
    "type": "object",
    "properties": {"secure": {"description": "Ciphertext, made by Pulumi.", "type": "string"}},
    "required": ["secure"],
    "additionalProperties": False,
}
LIMITS = {
    "environments:most": "How many environments there may be at once. Only in their template.",
    "environments:days": "How many days one lives after its last deployment. Only in their template.",
}
NUMBER = "{number}"
"""What the template of environments has in its texts, see docs/environments.md."""
BESIDE_CONFIG = {
    "environment": "Environments of Pulumi ESC whose config this stack has.",
    "secretsprovider": "What encrypts the secrets, written by Pulumi.",
    "encryptedkey": "The key of the secrets, written by Pulumi.",
    "encryptionsalt": "The salt of the secrets' passphrase, written by Pulumi.",
}


def text() -> str:
    """Return the content of the file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def schema() -> dict[str, Any]:
    """Return the schema."""
    config = _of_settings()
    keys, required = config["properties"], config["required"]
    keys["values"] = {**_of_chart(), "description": keys["values"]["description"]}
    secrets = keys["serverSecrets"]
    keys["serverSecrets"] = {"description": secrets.pop("description"), "anyOf": [secrets, ENCRYPTED]}
    _refuse(keys["loadBalancerController"]["properties"]["values"], CONTROLLER_VALUES)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": f"Made by `{COMMAND}`.",
        "type": "object",
        "properties": {
            "config": {
                "description": "What this stack differs in; docs/config.md lists the keys.",
                "type": "object",
                "properties": {
                    **{f"{PROJECT}:{key}": below for key, below in keys.items()},
                    **{
                        key: {"description": text, "pattern": r"^[1-9]\d{0,3}$"}
                        for key, text in LIMITS.items()
                    },
                },
                "patternProperties": {rf"^(?!{PROJECT}:|environments:)[^:]+:": True},
                "additionalProperties": False,
            },
            **{key: {"description": text} for key, text in BESIDE_CONFIG.items()},
        },
        "additionalProperties": False,
        "if": {"not": {"required": ["environment"]}},
        "then": {
            "required": ["config"],
            "properties": {"config": {"required": [f"{PROJECT}:{key}" for key in required]}},
        },
    }


# ---- the settings


class _Generator(GenerateJsonSchema):
    """Pydantic's own, without null, and without defaults that are no single value."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if not _is_single(made.get("default")):
            made.pop("default", None)
        return made


def _is_single(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _of_settings() -> dict[str, Any]:
    made = StackConfig.model_json_schema(schema_generator=_Generator)
    definitions = {**made.pop("$defs"), StackConfig.__name__: made}
    models: Any = griffe.load("settings.model", search_paths=[CHART.parent])
    for name, definition in definitions.items():
        for field in models[name].attributes.values():
            if field.docstring:
                text = " ".join(field.docstring.value.split())
                definition["properties"][to_camel(field.name)]["description"] = text
    settings: dict[str, Any] = _complete(made, definitions)
    return settings


def _refuse(values: dict[str, Any], paths: Iterable[ValuePath]) -> None:
    """Make each of `paths` a key that the object `values` may not have."""
    for *parents, last in paths:
        at = values
        for key in parents:
            at = at.setdefault("properties", {}).setdefault(key, {"type": "object"})
        at.setdefault("properties", {})[last] = False


# ---- the chart


def _of_chart() -> dict[str, Any]:
    made = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    table = re.findall(
        r"^\| (\S+) \| \w+ \| `(.*?)` \| (.*) \|$", (CHART / "README.md").read_text(encoding="utf-8"), re.M
    )
    said = {path: (text, json.loads(default.replace("nil", "null"))) for path, default, text in table}
    values = _overrides(_complete(made, made["definitions"]), said)
    for place in SECRET_VALUES:
        part, key = place.split(".")
        del values["properties"][part]["properties"][key]
    return values


def _overrides(part: dict[str, Any], said: dict[str, tuple[str, Any]], path: str = "") -> dict[str, Any]:
    """Return the schema of overrides of what `part` describes: nothing is required, all is explained.

    Args:
        part: of the chart's schema.
        said: text and default of each value.
        path: of `part`.
    """
    kept = {key: inner for key, inner in part.items() if key != "required"}
    if path in said:
        text, default = said[path]
        kept = {**kept, "description": text} | ({"default": default} if _is_single(default) else {})
    if "properties" in part:
        names = part["properties"].items()
        kept["properties"] = {
            name: _overrides(inner, said, f"{path}.{name}".lstrip(".")) for name, inner in names
        }
    return kept


# ---- both


def _complete(part: Any, definitions: dict[str, Any]) -> Any:
    """Return a part of a schema with copies of what it refers to: each key has a text of its own."""
    if isinstance(part, list):
        return [_complete(inner, definitions) for inner in part]
    if not isinstance(part, dict):
        return part
    for reference in (part, *part.get("allOf", ())):
        if "$ref" in reference:
            part = {**definitions[reference["$ref"].rpartition("/")[2]], **part}
    if part.get("format") == "password":
        return {key: part[key] for key in ("description",) if key in part} | ENCRYPTED
    whole = {
        key: _complete(inner, definitions)
        for key, inner in part.items()
        if key not in ("$ref", "allOf", "$schema", "definitions")
        and not (key == "title" and isinstance(inner, str))
    }
    if "patternProperties" in whole:
        whole["additionalProperties"] = False
        whole.pop("propertyNames", None)  # says the same
    if "pattern" in whole:
        whole["pattern"] += rf"|{re.escape(NUMBER)}"
    return whole


def main() -> None:
    """Write the file."""
    FILE.write_text(text(), encoding="utf-8")
    print(f"{FILE.relative_to(CHART.parent)} is written.")


if __name__ == "__main__":
    main()
