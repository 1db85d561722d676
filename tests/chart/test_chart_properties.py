"""Any values at all that the schema allows: they render, or are refused with a sentence."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from components.release.values import merged
from tests.chart.rendering import CREDENTIALS, Chart
from tests.chart.value_strategies import conforming, leaves, placed

LEAVES = leaves()
# What the schema leaves to the API server: the inside of a volume, whether a priority class exists.
KUBERNETES_OWN = {"volumes", "networkPolicy", "priorityClassName", "schedule", "timeZone"}
# Each example starts Helm, and starting a program takes as long as the machine pleases.
UNHURRIED = settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    database=None,
    derandomize=True,  # the same examples on every run: a failure here has a cause in the change
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@st.composite
def changes(draw: st.DrawFn, complete: bool = False) -> dict[str, Any]:
    """A few values set at once, each anything its schema allows; or those it describes completely."""
    paths = sorted(path for path in LEAVES if not complete or not KUBERNETES_OWN & set(path))
    values: dict[str, Any] = {}
    for path in draw(st.lists(st.sampled_from(paths), min_size=1, max_size=4)):
        values = merged(values, placed(path, draw(conforming(LEAVES[path]))))
    return values


@given(changes())
@UNHURRIED
def test_allowed_values_render_or_are_refused_with_a_sentence(chart: Chart, values: dict[str, Any]) -> None:
    run = chart.template(merged(CREDENTIALS, values), "mern", "shop", ())
    if run.returncode:
        event("refused")
        assert "these values cannot work:\n- " in run.stderr, run.stderr
        return
    event("rendered")
    rendered = chart.parsed(run.stdout)
    assert len(rendered.names()) == len(rendered.objects)
    for found in rendered.objects:
        assert found["metadata"]["namespace"] == "shop"


@given(st.sampled_from(sorted({path[:-1] for path in LEAVES if len(path) > 1})), st.booleans())
@UNHURRIED
def test_a_misspelt_value_is_refused_wherever_it_stands(
    chart: Chart, path: tuple[str, ...], nested: bool
) -> None:
    typo = {"mispelt": {"below": 1}} if nested else {"mispelt": 1}
    refusal = chart.refusal(merged(CREDENTIALS, placed(path, typo)), credentials=False)
    assert "'mispelt'" in refusal
    assert f"/{'/'.join(path)}'" in refusal
