"""The digest that ties Pulumi's state, Helm's record and the chart's files together."""

import contextlib
import io
import os
import random
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from components.release import ChartError, chart, chart_files, record_size
from components.release.secrets import Secrets
from sandbox.engine import PROJECT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PROJECT / "chart", tmp_path / "chart"))


def test_the_digest_does_not_depend_on_path_times_or_line_endings(copy: Path) -> None:
    expected = chart.load(str(PROJECT / "chart")).description
    assert chart.load(str(copy)).description == expected
    for file in copy.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
            os.utime(file, (0, 0))
    assert chart.load(str(copy)).description == expected


@pytest.mark.parametrize("change", ["edit", "add", "rename", "remove"])
def test_the_digest_changes_with_every_change_that_helm_would_load(copy: Path, change: str) -> None:
    before = chart.load(str(copy)).description
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
    assert chart.load(str(copy)).description != before


def test_binary_files_are_taken_byte_for_byte(copy: Path) -> None:
    (copy / "logo.png").write_bytes(b"\0\r\n")
    before = chart.load(str(copy)).description
    (copy / "logo.png").write_bytes(b"\0\n")
    assert chart.load(str(copy)).description != before


HELMIGNORE = """\
# a comment
*.md
/top.txt
docs/
deep/er/*.txt
  spaced.txt
[^a-y]oo.txt
/a\\*b.txt
\\[x].txt
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
        *("a*b.txt", "acb.txt", "[x].txt", "back/a*b.txt"),
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
    mine = chart_files.load(str(folder)).keys()
    assert mine - {"Chart.yaml", "templates/a.yaml"} == loaded


def test_a_folder_without_a_chart_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChartError, match=r"there is no file Chart\.yaml"):
        chart.load(str(tmp_path))
    (tmp_path / "Chart.yaml").write_text("name: [")
    with pytest.raises(ChartError, match="gives no name and version"):
        chart.load(str(tmp_path))


def test_a_secret_is_masked_in_every_form_that_a_message_may_quote() -> None:
    secret = 'it\'s "quoted"\n'
    values = {"a": [{"b": SecretStr(secret)}], "c": SecretStr("")}
    assert Secrets.of_values(values).holds(secret)
    for text in (secret, r"it's \"quoted\"\n", "it''s \"quoted\"\n"):
        assert Secrets([secret]).mask(f"got {text}!") == "got [secret]!"


def chart_in(folder: Path, **files: Any) -> Path:
    """A chart with more files than Chart.yaml, by path."""
    contents = {"Chart.yaml": "{apiVersion: v2, name: some, version: 0.1.0}", **files}
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def faults_of(folder: Path) -> list[str]:
    """The first line of each fault."""
    with pytest.raises(ChartError) as caught:
        chart.load(str(folder))
    title, *lines = str(caught.value).splitlines()
    assert title == f"Helm cannot deploy chart {folder}:"
    return [line.strip() for line in lines if not line.startswith("    ")]


def test_all_that_helm_cannot_load_is_named_at_once(tmp_path: Path) -> None:
    needs = "{apiVersion: v2, name: a, version: 0.1.0, type: library, dependencies: [{name: sub}, {name: 5}]}"
    folder = chart_in(tmp_path / "a chart", **{"Chart.yaml": needs, "d/big": b"0" * (5 * 1024**2 + 1)})
    (folder / ".helmignore").write_bytes(b"\xef\xbb\xbf# \xff[\n**/x\n/loops\na[1\n")
    (folder / "nothing").symlink_to("nowhere")
    (folder / "itself").symlink_to("itself")
    (folder / "d/up").symlink_to("..")
    (folder / "loops").symlink_to(".")  # ignored before it is followed, unlike a link to nothing
    (folder / "outside").symlink_to(tmp_path / "more")
    (tmp_path / "more").mkdir()
    os.mkfifo(folder / "pipe")
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))).touch()

    assert faults_of(folder) == [
        ".helmignore line 2: Helm knows no `**`. Write a line for each folder",
        ".helmignore line 4: there is no `]` for a `[`. Write `\\[` for one in a name",
        "d/big: has 5.0 MiB; Helm loads no file of more than 5 MiB. To leave it out:",
        "d/up: a link to a folder that it stands in. To remove it:",
        "itself: a link to nothing. To remove it:",
        "nothing: a link to nothing. To remove it:",
        "pipe: neither a file nor a folder. To remove it:",
        "\ufffd: its name is not UTF-8. Rename it",
    ]

    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).unlink()
    (folder / ".helmignore").write_text("/loops")  # and no line's end
    while commands := pasteable(folder):
        for command in commands:
            subprocess.run(command, shell=True, check=True)
    assert faults_of(folder) == [
        "Chart.yaml: depends on 5, sub, not there in the folder charts. To fetch it:",
        "Chart.yaml: its type is library, and Helm deploys only those of type application",
    ]
    (folder / "Chart.yaml").write_text(needs.replace("type: library,", "").replace(", {name: 5}", ""))
    (folder / "charts/sub").mkdir(parents=True)
    (folder / "charts/sub/Chart.yaml").write_text("{apiVersion: v2, name: sub, version: 0.1.0}")
    assert chart.load(str(folder)).description


def pasteable(folder: Path) -> list[str]:
    """The commands that are printed, those of helm excepted."""
    with pytest.raises(ChartError) as caught:
        chart.load(str(folder))
    lines = str(caught.value).splitlines()
    return [line.strip() for line in lines if line.startswith("    ") and "helm dependency" not in line]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, who can read all: this is what the system says to others."""
    folder = chart_in(tmp_path / "chart", secret="x")

    def read(file: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "read_bytes", read)
    assert faults_of(folder) == [
        "Chart.yaml: cannot be read: Permission denied. To leave it out:",
        "secret: cannot be read: Permission denied. To leave it out:",
    ]


def test_a_folder_of_any_depth_is_read(tmp_path: Path) -> None:
    folder = chart_in(tmp_path / "chart")
    before = chart.load(str(folder)).description
    at = os.open(folder, os.O_RDONLY)
    for _ in range(1200):  # as deep as Python does not go by recursion
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(os.open("file", os.O_CREAT, dir_fd=at))
    os.close(at)
    try:
        assert chart.load(str(folder)).description != before
    finally:
        subprocess.run(["rm", "-r", folder / "d"], check=True)


def packed(time: int, **files: str) -> bytes:
    """A chart as `helm package` packs it, at some time."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path, text in files.items():
            info = tarfile.TarInfo(f"sub/{path}")
            info.size, info.mtime = len(text), time
            archive.addfile(info, io.BytesIO(text.encode()))
    return content.getvalue()


def test_a_sub_chart_that_is_packed_anew_is_the_same_chart(tmp_path: Path) -> None:
    about = "{apiVersion: v2, name: sub, version: 0.1.0}"
    file = "charts/sub-0.1.0.tgz"
    inner = {time: packed(time, **{"Chart.yaml": about}) for time in (1, 2)}
    digests = []
    for content in (
        packed(1, **{"Chart.yaml": about}),
        packed(999999999, **{"Chart.yaml": about.replace("\n", "\r\n")}),
        packed(1, **{"Chart.yaml": about, "templates/a.yaml": "a: b"}),
        b"no archive",
        inner[1][:60],
    ):
        folder = chart_in(tmp_path / "chart", **{file: content, "Chart.yaml": NEEDS_SUB})
        with contextlib.suppress(ChartError):  # where it is no archive
            digests.append(chart.load(str(folder)).description)
        shutil.rmtree(folder)
    assert digests[0] == digests[1] != digests[2]
    assert len(digests) == 3
    # Elsewhere it is a file that templates may read.
    data = [chart.load(str(chart_in(tmp_path / f"{time}", data=inner[time]))).description for time in inner]
    assert data[0] != data[1]


NEEDS_SUB = "{apiVersion: v2, name: a, version: 0.1.0, dependencies: [{name: sub}]}"


def test_a_record_that_no_secret_holds_is_refused_by_the_names_of_the_largest_files(tmp_path: Path) -> None:
    def said(size: int, values: Any = None) -> list[str]:
        folder = chart_in(tmp_path / "chart", **{"docs/it's [1].mp4": random.Random(1).randbytes(size)})
        item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}}
        return record_size.require_room(chart.load(str(folder)), "shop/web", [item], values or {})

    assert said(10_000) == []
    [note] = said(750_000)
    assert note.startswith("Helm's record of release shop/web takes about 9")
    with pytest.raises(ChartError) as caught:
        said(900_000)
    first, _, *rest = str(caught.value).splitlines()
    assert first.startswith(f"Helm cannot store release shop/web of chart {tmp_path}/chart: its record would")
    assert first.endswith("compressed. The largest:")
    subprocess.run(rest[-1], shell=True, check=True)
    assert said(900_000) == []
    with pytest.raises(ChartError, match="the values of the release: ") as caught:
        said(900_000, {"secret": SecretStr(random.Random(1).randbytes(900_000).hex())})
    assert ".helmignore" not in str(caught.value)


def test_a_packed_chart_is_read_as_its_folder_is(
    tmp_path: Path, helm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(PROJECT / "tests/charts/web", tmp_path / "web"))
    (folder / "crds").mkdir()
    (folder / "crds/a.yaml").write_text("{kind: CustomResourceDefinition, metadata: {name: a}}")
    subprocess.run([helm, "package", str(folder), "-d", str(tmp_path)], check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    [packed] = (file.name for file in tmp_path.glob("*.tgz"))

    assert re.fullmatch(r"web 2\.1\.0 \(files \w{16}\)", chart.load(f"./{packed}").description)
    assert chart_files.load(packed).keys() == chart_files.load("web").keys()
    assert chart.load(packed).crds == chart.load("web").crds
    assert "in its folder, and pack it anew" in chart_files.leave_out(packed, "data.bin")


def test_what_helm_cannot_load_of_a_packed_chart_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("web.tgz").write_text("<html>Not found</html>")
    with pytest.raises(ChartError, match=r"chart web\.tgz: is no packed chart that Helm can unpack"):
        chart.load("web.tgz")
    files = {
        "web/Chart.yaml": b"{name: web, version: 1.0.0, dependencies: [{name: redis}], type: library}",
        "web/data.bin": bytes(6 * 1024**2),
    }
    for names, faults in (
        (list(files), ["data.bin: has 6.0 MiB; Helm loads no file of more than 5 MiB"]),
        (
            ["web/Chart.yaml"],
            [
                "Chart.yaml: depends on redis, and was packed without",
                "Chart.yaml: its type is library, and Helm deploys only those of type application",
            ],
        ),
    ):
        with tarfile.open("web.tgz", "w:gz") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = len(files[name])
                archive.addfile(member, io.BytesIO(files[name]))
        with pytest.raises(ChartError) as caught:
            chart.load("web.tgz")
        assert str(caught.value).splitlines() == [
            "Helm cannot deploy chart web.tgz:",
            *(f"  {it}" for it in faults),
        ]


@pytest.mark.parametrize("name", ["web/../../outside", "web//outside", "web\\..\\..\\outside"])
def test_a_packed_chart_with_files_outside_of_it_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with tarfile.open("web.tgz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("web/Chart.yaml"))
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ChartError, match="is no packed chart that Helm can unpack"):
        chart.load("web.tgz")
