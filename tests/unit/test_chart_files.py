"""The digest that ties Pulumi's state, Helm's record and the chart's files together."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from components.release import ChartError, chart
from components.release.secrets import Secrets
from sandbox.engine import PROJECT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PROJECT / "chart", tmp_path / "chart"))


def test_the_digest_does_not_depend_on_path_times_or_line_endings(copy: Path) -> None:
    expected = chart.describe(str(PROJECT / "chart"))
    assert chart.describe(str(copy)) == expected
    for file in copy.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
            os.utime(file, (0, 0))
    assert chart.describe(str(copy)) == expected


@pytest.mark.parametrize("change", ["edit", "add", "rename", "remove"])
def test_the_digest_changes_with_every_change_that_helm_would_load(copy: Path, change: str) -> None:
    before = chart.describe(str(copy))
    notes = copy / "templates/NOTES.txt"
    match change:
        case "edit":
            notes.write_text(notes.read_text() + "more")
        case "add":
            (copy / "templates/more.yaml").write_text("")
        case "rename":
            notes.rename(copy / "templates/OTHER.txt")
        case "remove":
            notes.unlink()
    assert chart.describe(str(copy)) != before


def test_binary_files_are_taken_byte_for_byte(copy: Path) -> None:
    (copy / "logo.png").write_bytes(b"\0\r\n")
    before = chart.describe(str(copy))
    (copy / "logo.png").write_bytes(b"\0\n")
    assert chart.describe(str(copy)) != before


HELMIGNORE = """\
# a comment
*.md
/top.txt
docs/
deep/er/*.txt
  spaced.txt
[^a-y]oo.txt
"""


LISTING = """\
apiVersion: v1
kind: List
items:{{ range $path, $_ := .Files.Glob "**" }}
- {{ $path }}{{ end }}
"""


def test_the_digest_covers_just_the_files_that_helm_packs(tmp_path: Path, helm: str) -> None:
    folder = tmp_path / "some"
    names = [
        *("Chart.yaml", "README.md", "top.txt", "sub/top.txt", "docs/a.txt", "sub/docs/b.txt"),
        *("deep/er/x.txt", "deep/x.txt", "other/deep/er/x.txt", "spaced.txt", "zoo.txt", "boo.txt"),
        *("templates/a.yaml", "templates/.hidden", "sub/.hidden", "a/docs", ".helmignore"),
    ]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / ".helmignore").write_text(HELMIGNORE)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: some\nversion: 0.1.0\n")
    (folder / "templates/a.yaml").write_text(LISTING)
    shown = subprocess.run(
        [helm, "template", "x", str(folder)], capture_output=True, text=True, check=True
    ).stdout
    loaded = {line[2:] for line in shown.splitlines() if line.startswith("- ")}
    assert "top.txt" not in loaded
    assert "sub/top.txt" in loaded
    # Helm does not list templates and Chart.yaml among the files that templates can read.
    mine = {path for path, _ in chart._files(folder)}
    assert mine - {"Chart.yaml", "templates/a.yaml"} == loaded


def test_a_folder_without_a_chart_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChartError, match=r"cannot read Chart\.yaml"):
        chart.describe(str(tmp_path))
    (tmp_path / "Chart.yaml").write_text("name: [")
    with pytest.raises(ChartError, match="gives no name and version"):
        chart.describe(str(tmp_path))


def test_a_secret_is_masked_in_every_form_that_a_message_may_quote() -> None:
    secret = 'it\'s "quoted"\n'
    values = {"a": [{"b": SecretStr(secret)}], "c": SecretStr("")}
    assert Secrets.of_values(values).holds(secret)
    for text in (secret, r"it's \"quoted\"\n", "it''s \"quoted\"\n"):
        assert Secrets([secret]).mask(f"got {text}!") == "got [secret]!"
