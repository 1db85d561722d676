"""docs/release-api.md is made from docstrings and whole, and its example is part of a program that is run."""

import re

from components import release
from docs import release_api
from sandbox.engine import PROJECT

PAGE = (PROJECT / "docs/release.md").read_text()
[PROGRAM, *_] = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)


def test_the_page_is_made_from_the_docstrings() -> None:
    assert release_api.FILE.read_text() == release_api.page(), f"make it anew: {release_api.COMMAND}"


def test_every_function_and_every_field_has_a_meaning() -> None:
    page = release_api.FILE.read_text()
    assert re.findall(r"^\| `(\w+)` .*\|  \|$", page, re.MULTILINE) == []
    assert re.findall(r"^#+ (.+)\n\n```python\n[^`]*```\n\n(?=#)", page, re.MULTILINE) == []


def test_the_example_of_the_package_is_a_part_of_the_documented_program() -> None:
    """Which tests/engine/test_another_chart.py deploys."""
    example = re.findall(r"^    (.+)", release.__doc__ or "", re.MULTILINE)
    assert example
    assert [line for line in example if line not in PROGRAM] == []


def test_the_documented_program_is_the_one_that_the_type_checker_reads() -> None:
    """By `make check`, strictly; for those who install the package, its types count by the file py.typed."""
    from_source = PROGRAM.replace("pulumi_chart_release", "components.release")
    assert (PROJECT / "tests/charts/program.py").read_text() == from_source
    assert (PROJECT / "components/release/py.typed").is_file()
