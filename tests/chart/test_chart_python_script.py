"""python-script: the hourly job."""

from __future__ import annotations

import pytest

from tests.chart.rendering import Chart


def test_the_script_runs_every_hour_by_default(chart: Chart) -> None:
    cronjob = chart.render().one("CronJob", "mern-python-script")
    assert cronjob["apiVersion"] == "batch/v1"
    assert cronjob["spec"]["schedule"] == "0 * * * *"


@pytest.mark.parametrize(
    "schedule", ["*/15 6-18 * * MON-FRI", "@daily", "0 3 1,15 * ?", "5-59/10 */2 31 12,jan 0"]
)
def test_the_schedule_can_be_any_that_cron_knows(chart: Chart, schedule: str) -> None:
    rendered = chart.render({"pythonScript": {"schedule": schedule}})
    assert rendered.one("CronJob", "mern-python-script")["spec"]["schedule"] == schedule


@pytest.mark.parametrize(
    "schedule",
    ["", "hourly", "* * * *", "TZ=UTC 0 * * * *", "0 * * * * *", "60 * * * *", "0 24 * * *", "*/0 * * * *"],
)
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
    assert "pythonScript.env.AWS_REGION is what pythonScript.awsRegion is for" in refusal
    assert "pythonScript.env.MONGODB_URI is what pythonScript.mongodbUri is for" in refusal


def test_everything_about_a_run_can_be_changed(chart: Chart) -> None:
    cron = {
        "timeZone": "Europe/Berlin",
        "suspend": True,
        "concurrencyPolicy": "Replace",
        "startingDeadlineSeconds": 60,
        "successfulJobsHistoryLimit": 0,
        "failedJobsHistoryLimit": 7,
    }
    run = {"backoffLimit": 0, "activeDeadlineSeconds": 120}
    spec = chart.render({"pythonScript": {**cron, **run}}).one("CronJob", "mern-python-script")["spec"]
    assert cron.items() <= spec.items()
    assert run.items() <= spec["jobTemplate"]["spec"].items()


def test_deadlines_can_be_left_out(chart: Chart) -> None:
    never = {"startingDeadlineSeconds": None, "activeDeadlineSeconds": None}
    spec = chart.render({"pythonScript": never}).one("CronJob", "mern-python-script")["spec"]
    assert "startingDeadlineSeconds" not in spec
    assert "activeDeadlineSeconds" not in spec["jobTemplate"]["spec"]
    assert "timeZone" not in spec


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeZone", "Europe/Berlin "),
        ("concurrencyPolicy", "forbid"),
        ("startingDeadlineSeconds", 5),  # below ten seconds Kubernetes may miss every run
        ("activeDeadlineSeconds", 0),
        ("backoffLimit", -1),
        ("suspend", "no"),
    ],
)
def test_a_broken_setting_of_a_run_is_refused(chart: Chart, field: str, value: object) -> None:
    assert f"/pythonScript/{field}" in chart.refusal({"pythonScript": {field: value}})


def test_a_run_right_after_a_deployment_is_the_same_run(chart: Chart) -> None:
    rendered = chart.render({"pythonScript": {"runAfterDeployment": True, "env": {"A": "b"}}})
    job = rendered.one("Job", "mern-python-script-once")
    assert job["metadata"]["annotations"] == {
        "helm.sh/hook": "post-install,post-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    once = rendered.pod("Job", "mern-python-script-once")["spec"]
    hourly = rendered.pod("CronJob", "mern-python-script")["spec"]
    assert once["containers"][0].pop("name") == "python-script-once"
    assert hourly["containers"][0].pop("name") == "python-script"
    assert once == hourly


def test_no_run_follows_a_deployment_unless_it_is_asked_for(chart: Chart) -> None:
    assert chart.render().kind("Job") == []
