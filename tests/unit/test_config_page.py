"""docs/config.md has every key of a stack's config."""

import re
from collections.abc import Iterator, Mapping

from pydantic.fields import FieldInfo

from sandbox.engine import PROJECT
from settings import KEYS
from settings.model import fields_of, model_in

PAGE = (PROJECT / "docs/config.md").read_text()


def keys(fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    """Yield the keys inside of objects, however deep."""
    for key, field in fields.items():
        yield key
        if model := model_in(field.annotation):
            yield from keys(fields_of(model))


def test_every_key_is_on_the_page() -> None:
    overview, *sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    of_objects = {section.split("\n")[0]: section for section in sections}
    for key, field in KEYS.items():
        assert f"`mern:{key}`" in overview
        text = of_objects.get(f"mern:{key}", overview)
        model = model_in(field.annotation)
        for inner in keys(fields_of(model)) if model else ():
            assert re.search(rf"`([\w.]+\.)?{inner}[`.]", text), f"mern:{key} … {inner}"
