"""Which charts are rendered as an upgrade."""

from pathlib import Path

import pytest

from components.release import chart


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ if .Release.IsUpgrade }}a{{ end }}", True),
        ("{{- if $.Release.IsInstall -}}", True),
        ("{{ .Release.Revision }}", False),
        # As in libraries that keep a password: without the Secret, an upgrade fails.
        ('{{ if .Release.IsUpgrade }}{{ lookup "v1" "Secret" "a" "b" }}{{ end }}', False),
    ],
)
def test_a_chart_is_rendered_as_an_upgrade_where_that_makes_a_difference_and_is_possible(
    tmp_path: Path, template: str, expected: bool
) -> None:
    for name, text in (("Chart.yaml", "name: web\nversion: 0.1.0"), ("templates/a.yaml", template)):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    loaded = chart.load(str(tmp_path))
    assert loaded.tells_upgrades is expected
    with chart._folder(loaded, is_upgrade=True) as folder:
        assert (Path(folder) / chart.FIRST_TEMPLATE).read_bytes() == chart.TELL_UPGRADE
        assert (Path(folder) / "templates/a.yaml").read_text() == template
    assert not Path(folder).exists()
