"""The settings of a stack, read from the config that the engine hands over."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pulumi.runtime.config as engine
import yaml
from pydantic import Field, SecretStr

from components.release.values import map_leaves
from settings import faults
from settings.images import IMAGES_VARIABLE, ImageReference
from settings.model import IMAGE_TAG_VARIABLE, PROJECT, StackConfig

CONTROLLER = "loadBalancerController"
"""A key whose object may hold secrets, among its `values`."""


class Settings(StackConfig):
    """The config of one stack, without fault."""

    images: Mapping[str, ImageReference] = Field(default={})
    """Images for this run by the part of the chart, in place of all that the config says of them."""

    @classmethod
    def load(cls) -> "Settings":
        """Return the settings of the stack that runs.

        Raises:
            pulumi.RunError: with every fault of the stack's config.
        """
        config = {**engine.get_config_env(), **engine.CONFIG.get()}
        secret = {key for key in config if engine.is_config_secret(key)}
        secret |= set(engine.get_config_secret_keys_env())
        prefix = f"{PROJECT}:"
        stack = pulumi.get_stack()
        return cls.parse(
            {key.removeprefix(prefix): text for key, text in config.items() if key.startswith(prefix)},
            {key.removeprefix(prefix) for key in secret},
            stack,
            _unquoted_text(Path(f"Pulumi.{stack}.yaml"), f"{prefix}imageTag"),
            run_tag=os.environ.get(IMAGE_TAG_VARIABLE) or None,
            run_images=os.environ.get(IMAGES_VARIABLE, ""),
        )

    @classmethod
    def parse(
        cls,
        config: Mapping[str, str],
        secret: set[str],
        stack: str,
        written_tag: str | None = None,
        *,
        run_tag: str | None = None,
        run_images: str = "",
    ) -> "Settings":
        """Return the settings in `config`, as the engine hands it over: strings, objects as JSON.

        Args:
            config: key (without `mern:`) to text.
            secret: the keys that the stack file holds encrypted.
            stack: name of the stack, for the commands in the message.
            written_tag: how the stack file writes `imageTag` where it stands there without quotes.
            run_tag: the image tag for this run, in place of `imageTag`.
            run_images: the images for this run, as `--image` gives them.

        Raises:
            pulumi.RunError: with every fault of the config.
        """
        values, found = faults.check(config, secret, written_tag, run_tag)
        images, of_images = faults.check_images(run_images, values)
        if found := [*found, *of_images]:
            raise pulumi.RunError(faults.report(found, stack))
        if CONTROLLER in secret:  # which texts in it are secrets, the engine does not say
            given = values[CONTROLLER]
            values[CONTROLLER] = given | {"values": map_leaves(given["values"], _hidden)}
        return cls.model_validate({**values, "images": images})


def _hidden(leaf: Any) -> Any:
    return SecretStr(leaf) if isinstance(leaf, str) else leaf


def _unquoted_text(stack_file: Path, key: str) -> str | None:
    """Return what stands in the stack file at `key` without quotes; None where that cannot be told."""
    try:
        root: Any = yaml.compose(stack_file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        config = next(below for name, below in root.value if name.value == "config")
        node = next(below for name, below in config.value if name.value == key)
    except (OSError, ValueError, AttributeError, TypeError, StopIteration, yaml.YAMLError):
        return None
    return node.value if isinstance(node, yaml.ScalarNode) and node.style is None else None
