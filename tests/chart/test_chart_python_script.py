"""python-script: the hourly job."""

from __future__ import annotations

import pytest

from tests.chart.rendering import Chart


def test_the_script_runs_every_hour_by_default(chart: Chart) -> None:
    cronjob = chart.render().one("CronJob", "mern-python-script")
    assert cronjob["apiVersion"] == "batch/v1"
    assert cronjob["spec"]["schedule"] == "0 * * * *"


@pytest.mark.parametrize("schedule", ["*/15 6-18 * * MON-FRI", "@daily", "0 3 1,15 * ?"])
def test_the_schedule_can_be_any_that_cron_knows(chart: Chart, schedule: str) -> None:
    rendered = chart.render({"pythonScript": {"schedule": schedule}})
    assert rendered.one("CronJob", "mern-python-script")["spec"]["schedule"] == schedule


@pytest.mark.parametrize("schedule", ["", "hourly", "* * * *", "TZ=UTC 0 * * * *", "0 * * * * *"])
def test_what_is_no_schedule_is_refused(chart: Chart, schedule: str) -> None:
    assert "schedule" in chart.refusal({"pythonScript": {"schedule": schedule}})


def test_a_run_cannot_overlap_or_block_the_next(chart: Chart) -> None:
    spec = chart.render().one("CronJob", "mern-python-script")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 3600
    assert spec["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_scripts_image_resources_and_variables_are_those_of_the_values(chart: Chart) -> None:
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi", "cpu": 4}}
    rendered = chart.render(
        {
            "pythonScript": {
                "image": {"repository": "registry.example/etl", "tag": "3", "pullPolicy": "Never"},
                "resources": resources,
                "awsRegion": "eu-central-1",
                "env": {"BATCH_SIZE": "500"},
            }
        }
    )
    (container,) = rendered.pod("CronJob", "mern-python-script")["spec"]["containers"]
    assert container["image"] == "registry.example/etl:3"
    assert container["imagePullPolicy"] == "Never"
    assert container["resources"] == resources
    assert container["env"] == [
        {"name": "AWS_DEFAULT_REGION", "value": "eu-central-1"},
        {"name": "AWS_REGION", "value": "eu-central-1"},
        {"name": "BATCH_SIZE", "value": "500"},
    ]


def test_without_a_region_no_region_is_set(chart: Chart) -> None:
    (container,) = chart.render().pod("CronJob", "mern-python-script")["spec"]["containers"]
    assert "env" not in container


def test_a_variable_that_has_a_value_of_its_own_is_refused_as_env(chart: Chart) -> None:
    refusal = chart.refusal({"pythonScript": {"env": {"AWS_REGION": "x", "MONGODB_URI": "why"}}})
    assert "pythonScript.env.AWS_REGION has a value of its own" in refusal
    assert "pythonScript.env.MONGODB_URI has a value of its own" in refusal
