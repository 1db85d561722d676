"""Programs are found, or built once for all clones; what cannot be had is named."""

import stat
from pathlib import Path

import pytest

from sandbox import tools
from sandbox.tools import KWOK, MODULES, PULUMI, Group, SandboxError, prepare

GROUPS = [each for each in vars(tools).values() if isinstance(each, Group)]

# In place of Go: writes what it was asked to build, or fails as Go does.
GO = """#!/bin/sh
echo "$@" >> "$0.calls"
[ -e "$0.broken" ] && { echo "checksum mismatch"; exit 1; }
while [ "$1" != -o ]; do shift; done
out=$2; shift 2
for package in "$@"; do touch "$out${package##*/}"; done
"""


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing but Go and an empty cache."""
    (tmp_path / "path").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/path:/usr/bin:/bin")
    monkeypatch.setattr(tools, "cache_folder", lambda: tmp_path / "cache")
    return program(tmp_path / "path/go", GO)


def test_missing_programs_are_built_once_for_all_clones(
    go: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for clone in ("one", "two"):
        prepare(tmp_path / clone, [KWOK])
        for name in KWOK.packages:
            assert (tmp_path / clone / name).resolve().is_relative_to(tmp_path / "cache")
    assert len(go.with_name("go.calls").read_text().splitlines()) == 1
    assert "about 1 min" in capsys.readouterr().out


def test_a_fitting_program_on_path_is_used_and_another_version_is_not(go: Path, tmp_path: Path) -> None:
    minor = KWOK.version.rpartition(".")[0]
    for version, builds in ((f"{minor}.93", 0), ("0.6.0", 1)):
        for name in KWOK.packages:
            program(go.with_name(name), f"#!/bin/sh\necho {name} version v{version}\n")
        prepare(tmp_path / "clone", [KWOK])
        from_path = (tmp_path / "clone/kwok").resolve() == go.with_name("kwok").resolve()
        assert from_path is (builds == 0)
        assert go.with_name("go.calls").exists() is (builds == 1)


def test_a_build_that_fails_says_why_and_leaves_nothing(go: Path, tmp_path: Path) -> None:
    go.with_name("go.broken").touch()
    with pytest.raises(SandboxError, match=r"(?s)kwok, kwokctl.*checksum mismatch"):
        prepare(tmp_path / "clone", [KWOK])
    assert not list((tmp_path / "cache").glob("*/kwok"))
    go.with_name("go.broken").unlink()
    prepare(tmp_path / "clone", [KWOK])
    assert (tmp_path / "clone/kwok").exists()


def test_a_newer_command_line_fits_and_an_older_one_does_not(go: Path, tmp_path: Path) -> None:
    for version, fits in (("v3.999.0", True), ("v3.100.0", False), ("v4.0.0", False), ("unknown", False)):
        path = program(go.with_name("pulumi"), f"#!/bin/sh\necho {version}\n")
        assert tools._fits(path, PULUMI) is fits


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_program_is_pinned_with_checksums(group: Group) -> None:
    pins = (MODULES / group.pins / "go.mod").read_text()
    sums = (MODULES / group.pins / "go.sum").read_text()
    for package in group.packages.values():
        assert package in pins or package.startswith(".")
    for line in pins.splitlines():
        module, _, rest = line.strip().removeprefix("require ").partition(" v")
        if rest and "=>" not in line and "/" in module and f"{module} => " not in pins:
            assert f"{module} v{rest.split()[0]} h1:" in sums or f"{module} v{rest.split()[0]}/go.mod" in sums


def test_the_folder_of_links_itself_is_not_where_programs_are_found(
    go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "clone", [KWOK])
    monkeypatch.setenv("PATH", f"{tmp_path}/clone:{tmp_path}/path:/usr/bin:/bin")  # as `make env` sets it
    for name in KWOK.packages:
        program(tmp_path / "clone" / name, f"#!/bin/sh\necho version v{KWOK.version}\n")
    prepare(tmp_path / "clone", [KWOK])
    for name in KWOK.packages:
        assert (tmp_path / "clone" / name).resolve().is_relative_to(tmp_path / "cache")
