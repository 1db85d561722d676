"""Environments of pull requests up to the engine: their config, their limits, when they go, what is said."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import yaml

from components import namespace as namespaces
from components.cluster import EksCluster
from components.release import record
from components.release.kubernetes_api import Api, ApiError
from components.service_account_role import LONGEST_ROLE_NAME, role_arn
from operations import stack_file
from operations.__main__ import main
from operations.ci import engine
from operations.ci.engine import Run
from operations.ci.github import GitHubError
from operations.environments import lifecycle, listing, report, template
from operations.environments.lifecycle import Environments
from operations.environments.listing import Environment, Serving
from operations.environments.template import EnvironmentsError, Template
from operations.stack import open_stack
from sandbox.engine import PROJECT
from tests import github_api, remedies
from tests.github_api import FakeGitHub
from tests.unit.conftest import pulumi

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
TEMPLATE = Template(name="preview", pattern="mern-pr-{number}", most=2, days=7, beside={})
MERGED = {"state": "closed", "merged_at": "2026-05-01T12:00:00Z"}
ABSENT = ApiError(404, {"reason": "NotFound"})
Answer = Callable[[str], Run]


@pytest.fixture
def preview(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The template as it is committed, with a secret; one environment may be there."""
    text = (PROJECT / "Pulumi.preview.yaml").read_text()
    file = project / "Pulumi.preview.yaml"
    file.write_text(text.replace('environments:most: "20"', 'environments:most: "1"'))
    (project / "chart").symlink_to(PROJECT / "chart")
    pulumi("stack", "init", "preview", "--non-interactive")
    pulumi("config", "set", "--secret", "mern:mongodbUri", "of-no-other", "--stack", "preview")
    yield file
    for item in json.loads(pulumi("stack", "ls", "--json")):
        if item["name"].startswith(("preview", "mern-pr-")):
            pulumi("stack", "rm", item["name"], "--yes", "--force")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs of the engine, in place of them: each goes well. The cluster holds nothing."""
    ran: list[str] = []

    def run(stack: Any, command: str, secrets: Any = None, *, refresh: bool = False) -> Run:
        ran.append(f"{command} {stack.name}{' --refresh' if refresh else ''}")
        return Run(command=command, ok=True)

    monkeypatch.setattr(engine, "run", run)
    monkeypatch.setattr(record, "newest", lambda *_: None)
    api = SimpleNamespace(find=lambda path, **_: None)
    monkeypatch.setattr(lifecycle, "connect", lambda *_: (api, ""))
    return ran


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGitHub]:
    with github_api.serve() as fake:
        for key, text in {**fake.env, "GITHUB_TOKEN": github_api.TOKEN}.items():
            monkeypatch.setenv(key, text)
        yield fake


def config_of(name: str) -> Any:
    return json.loads(pulumi("config", "--json", "--show-secrets", "--stack", name))


def test_a_copy_has_the_number_where_it_belongs_and_secrets_encrypted_by_the_same_key(
    preview: Path, ran: list[str]
) -> None:
    stale = Path("Pulumi.mern-pr-1.yaml")
    stale.write_text("config:\n  mern:imageTag: of-a-pull-request\n")
    assert main(["environment", "up", "1"]) == 0
    config = config_of("mern-pr-1")
    assert config["mern:namespace"]["objectValue"]["name"] == "mern-pr-1"
    assert config["mern:values"]["objectValue"]["ingress"]["hosts"] == ["pr-1.preview.example.com"]
    assert config["mern:mongodbUri"] == {"value": "of-no-other", "secret": True}
    assert "mern:imageTag" not in config
    file = stack_file.read("mern-pr-1")
    assert file.beside == stack_file.read("preview").beside
    assert "of-no-other" not in file.content.decode()
    assert "{number}" not in file.content.decode()
    assert "adopt" not in file.config["mern:release"]
    assert ran == ["up mern-pr-1"]

    # What is there by half is taken over.
    assert main(["environment", "up", "1"]) == 0
    assert stack_file.read("mern-pr-1").config["mern:release"]["adopt"] is True
    assert ran[1:] == ["up mern-pr-1 --refresh"]
    # A `pulumi up` without --stack goes where it went before.
    current = [item["name"] for item in json.loads(pulumi("stack", "ls", "--json")) if item["current"]]
    assert current == ["preview"]


def test_a_namespace_that_no_environment_has_made_is_left_alone_also_the_second_time(
    preview: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of another repository's pull request of the same number."""
    api = SimpleNamespace(find=lambda path, **_: {"status": {"phase": "Active"}})
    monkeypatch.setattr(lifecycle, "connect", lambda *_: (api, ""))
    for _ in range(2):
        assert main(["environment", "up", "1"]) == 1
        assert (
            "namespace mern-pr-1 is there, and no stack mern-pr-1 that has made it" in capsys.readouterr().err
        )
    assert main(["environment", "down", "1"]) == 0
    assert "there is no environment mern-pr-1" in capsys.readouterr().out
    assert ran == []


def test_a_run_that_comes_too_late_deploys_nothing_for_a_pull_request_that_is_closed(
    preview: Path, ran: list[str], github: FakeGitHub, tmp_path: Path
) -> None:
    comment = tmp_path / "comment.md"
    github.pulls = {1: MERGED}
    assert main(["environment", "up", "1", "--comment", str(comment)]) == 0
    assert comment.read_text() == (
        "### Environment <code>mern-pr-1</code> is not deployed: the pull request is merged\n"
    )
    assert ran == []
    assert "mern-pr-1" not in pulumi("stack", "ls")


def test_what_a_killed_run_has_begun_to_remove_is_removed_before_it_is_deployed_again(
    ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Helm was seen to say `"mern" has no deployed releases` of a release that it is uninstalling."""
    stack: Any = SimpleNamespace(name="mern-pr-1", get_all_config=dict, set_config=lambda *_, **__: None)
    monkeypatch.setattr(record, "newest", lambda *_: SimpleNamespace(status="uninstalling"))
    assert Environments(TEMPLATE, lambda _: stack)._deploy_again(stack, "mern-pr-1").ok
    assert ran == ["destroy mern-pr-1 --refresh", "up mern-pr-1 --refresh"]


def test_two_in_one_folder_do_not_meet(
    preview: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The second one took the stack file from under the first, which reported faults that nobody had made."""
    with lifecycle._alone("mern-pr-1"):
        for command in ("up", "down"):
            assert main(["environment", command, "1"]) == 1
            assert "another command is at work on mern-pr-1 in this folder" in capsys.readouterr().err
    assert ran == []
    assert not Path("Pulumi.mern-pr-1.lock").exists()


def test_there_are_only_so_many(preview: Path, ran: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["environment", "up", "1"]) == 0
    assert main(["environment", "up", "2"]) == 1
    said = capsys.readouterr().err
    assert "there are 1 environments, and environments:most in Pulumi.preview.yaml allows 1" in said
    [command] = remedies.commands_in(said)
    assert main(command.split()[3:]) == 0
    remedies.ran.add(command)
    assert main(["environment", "up", "2"]) == 0
    assert ran == ["up mern-pr-1", "destroy mern-pr-1 --refresh", "up mern-pr-2"]


def test_one_that_was_never_deployed_is_removed_with_the_templates_config(
    preview: Path, ran: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nor does it need a stack file: that of another machine."""
    comment = tmp_path / "comment.md"
    assert main(["environment", "up", "1"]) == 0
    Path("Pulumi.mern-pr-1.yaml").unlink()
    assert main(["environment", "down", "1", "--comment", str(comment)]) == 0
    assert ran[1:] == ["destroy mern-pr-1 --refresh"]
    assert "config from Pulumi.preview.yaml: getting latest configuration: no previous deployment" in (
        capsys.readouterr().out
    )
    assert "mern-pr-1" not in pulumi("stack", "ls")
    assert not Path("Pulumi.mern-pr-1.yaml").exists()
    assert "<code>mern-pr-1</code> is removed" in comment.read_text()

    assert main(["environment", "down", "1", "--comment", str(comment)]) == 0
    assert "there is no environment mern-pr-1" in capsys.readouterr().out


def test_a_config_that_the_program_does_not_take_is_mended_in_the_template(
    preview: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a sweep by the default branch's program: a pull request may have brought a new key. It is removed
    with the template's config then."""
    fault = (
        "1 fault in the config of stack mern-pr-1 (Pulumi.mern-pr-1.yaml):\n  mern:new is not a key of this "
        "project\n      pulumi config rm mern:new --stack mern-pr-1"
    )
    is_well = iter([False, True, False, True])
    monkeypatch.setattr(
        engine,
        "run",
        lambda *_, **__: Run(command="", ok=True) if next(is_well) else Run(command="", errors=[fault]),
    )
    run = Environments(template.read("preview"), open_stack).up(1)
    assert run.errors[-1].splitlines() == [
        "The config of mern-pr-1 is a copy: mend it in Pulumi.preview.yaml",
        "    pulumi config rm mern:new --stack preview",
    ]
    assert run.errors[-1] in capsys.readouterr().err
    assert "mern-pr-1" not in pulumi("stack", "ls")  # of what was refused nothing stays
    assert main(["environment", "up", "1"]) == 0
    assert main(["environment", "down", "1"]) == 0
    assert "mern-pr-1" not in pulumi("stack", "ls")
    assert list(is_well) == []


def test_a_namespace_that_does_not_go_is_said_with_what_holds_it(
    preview: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of an Ingress whose controller is gone; seen of the API server."""
    assert main(["environment", "up", "1"]) == 0
    held = "Some content in the namespace has finalizers remaining: group.ingress.k8s.aws/x in 1 instances"
    status = {"phase": "Terminating", "conditions": [{"status": "True", "message": held}]}
    api = SimpleNamespace(find=lambda path, **_: {"status": status})
    monkeypatch.setattr(lifecycle, "connect", lambda *_: (api, ""))
    monkeypatch.setattr(lifecycle, "LONGEST_WAIT", 0)
    assert main(["environment", "down", "1"]) == 1
    said = capsys.readouterr().err
    assert f"namespace mern-pr-1 is being deleted and does not go: {held}" in said
    [command] = remedies.commands_in(said)
    monkeypatch.setattr(lifecycle, "connect", lambda *_: (SimpleNamespace(find=lambda path, **_: None), ""))
    assert main(command.split()[3:]) == 0
    remedies.ran.add(command)


@pytest.mark.parametrize("name", ["mern-preview", "{number}", "mern-{number}-pr", "Mern-{number}", None])
def test_a_template_has_a_pattern_of_names(project: Path, name: str | None) -> None:
    Path("Pulumi.shop.yaml").write_text(yaml.safe_dump({"config": {"mern:namespace": {"name": name}}}))
    with pytest.raises(EnvironmentsError, match=r"name has to end with \{number\}") as refusal:
        template.read("shop")
    [command] = remedies.commands_in(str(refusal.value))
    remedies.run(command, folder=project)
    assert template.read("shop").pattern == "mern-pr-{number}"


def test_all_faults_of_a_template_are_said_together_each_with_a_command_that_mends_it(project: Path) -> None:
    config: dict[str, Any] = {
        "mern:namespace": {"name": "mern-preview"},
        "mern:values": {"ingress": {"group": {"name": "shared"}, "hosts": ["pr-{number}.a", "preview.a"]}},
        "environments:days": "0",
        "environments:most": "many",
        "environments:day": "5",
    }
    Path("Pulumi.shop.yaml").write_text(yaml.safe_dump({"config": config}))
    with pytest.raises(EnvironmentsError) as refusal:
        template.read("shop")
    title, *lines = str(refusal.value).splitlines()
    assert title == "Pulumi.shop.yaml is no template of environments. If it is to be one:"
    assert [line.strip().split()[0] for line in lines[::2]] == [
        "mern:namespace.name",
        "mern:values.ingress.hosts[1]",
        "environments:day",
        "environments:most",
        "environments:days",
    ]
    for command in lines[1::2]:
        remedies.run(command.strip(), folder=project)
    mended = template.read("shop")
    assert (mended.most, mended.days) == (20, 7)
    hosts = stack_file.read("shop").config["mern:values"]["ingress"]["hosts"]
    assert hosts == ["pr-{number}.a", "pr-{number}.preview.example.com"]


@pytest.mark.parametrize(
    ("ingress", "is_fault"),
    [
        ({"group": {"name": "shared"}}, True),
        ({"group": {"name": "shared"}, "hosts": []}, True),
        ({"group": {"name": "shared"}, "enabled": False}, False),
        ({"hosts": ["shop.example.com"]}, True),
        ({}, False),  # each has a load balancer of its own
    ],
)
def test_no_environment_has_the_host_of_another(ingress: Any, is_fault: bool) -> None:
    shared = template._shared_hosts({"mern:values": {"ingress": ingress}})
    assert shared == ["mern:values.ingress.hosts[0]"][:is_fault]


def test_names_stay_within_every_limit() -> None:
    name = TEMPLATE.name_of(4_294_967_295)
    assert TEMPLATE.number_of(name) == 4_294_967_295
    for other in ("mern-pr-0", "mern-pr-01", "mern-pr-1a", "a-mern-pr-1", "staging", "preview"):
        assert TEMPLATE.number_of(other) is None
    with pytest.raises(EnvironmentsError, match="no namespace can be called so"):
        Template(name="", pattern=f"{'a' * 60}-{{number}}", most=1, days=1, beside={}).name_of(482)
    arn = f"arn:aws:eks:eu-central-1:111111111111:cluster/{'c' * 100}"
    cluster = EksCluster(name="c" * 100, arn=arn, vpc_id="", oidc_issuer="")
    with mock.patch("pulumi.get_stack", lambda: name), mock.patch("pulumi.get_project", lambda: "mern"):
        role = role_arn(cluster, "python-script").rpartition("/")[2]
    assert len(role) <= LONGEST_ROLE_NAME
    assert role.startswith(f"mern.{name}.")  # so that a policy on mern.mern-pr-*.* holds it


# -- sweep


class Some:
    """Environments, and the numbers of those that were removed."""

    template = TEMPLATE

    def __init__(
        self, *environments: Environment, fails: int = 0, later: tuple[Environment, ...] = ()
    ) -> None:
        self.environments, self.removed, self.fails = environments, list[int](), fails
        self.later = later
        """In their place after the first removal."""

    def read(self) -> dict[int, Environment]:
        return {item.number: item for item in self.environments}

    def down(self, number: int) -> Run:
        if number == self.fails:
            raise EnvironmentsError("its namespace does not go")
        self.removed.append(number)
        self.environments = self.later or self.environments
        return Run(command="destroy", ok=True)


def environment(number: int, days: float) -> Environment:
    changed = datetime.now(UTC) - timedelta(days=days)
    return Environment(number=number, name=f"mern-pr-{number}", changed=changed)


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, project: Path) -> Callable[..., int]:
    def run(some: Some, *arguments: str) -> int:
        config = {"mern:namespace": {"name": "mern-pr-{number}"}}
        Path("Pulumi.preview.yaml").write_text(yaml.safe_dump({"config": config}))
        monkeypatch.setattr(lifecycle, "Environments", lambda *_, **__: some)
        return main(["environment", "sweep", *arguments])

    return run


def test_what_is_closed_merged_or_old_goes_and_what_fails_holds_up_no_other(
    sweep: Callable[..., int], github: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, closed = {"state": "open"}, {"state": "closed"}
    github.pulls = {1: opened, 2: closed, 3: MERGED, 4: opened}
    some = Some(*(environment(number, days=8 if number == 4 else 6.9) for number in (1, 2, 3, 4, 5)), fails=2)
    assert sweep(some, "--dry-run") == 1
    assert some.removed == []
    assert sweep(some) == 1
    assert some.removed == [3, 4]
    said = capsys.readouterr()
    assert "mern-pr-1 stays" in said.out
    assert "mern-pr-2: its namespace does not go" in said.err
    assert "mern-pr-5: GET /pulls/5: GitHub answers 404" in said.err  # and is left alone
    assert {item["issue"]: item["body"].splitlines()[1] for item in github.comments} == {
        "3": "### Environment <code>mern-pr-3</code> is removed: pull request 3 is merged",
        "4": "### Environment <code>mern-pr-4</code> is removed: nothing was deployed to it for 7 days",
    }


def test_what_was_deployed_to_while_others_were_removed_stays(
    sweep: Callable[..., int], github: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    some = Some(*(environment(number, days=8) for number in (1, 2)), later=(environment(2, days=0),))
    assert sweep(some) == 0
    assert some.removed == [1]
    assert "mern-pr-2 stays: it was deployed to meanwhile" in capsys.readouterr().out


def test_what_is_removed_is_removed_also_where_its_pull_request_takes_no_comment(
    sweep: Callable[..., int],
    github: FakeGitHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """GitHub answers 403 where a conversation is locked."""

    def locked(*_: Any) -> Any:
        raise GitHubError("POST /issues/1/comments: GitHub answers 403 Forbidden")

    monkeypatch.setattr("operations.ci.github.comment", locked)
    github.pulls, summary = {1: MERGED}, tmp_path / "summary.md"
    assert sweep(Some(environment(1, days=1)), "--summary", str(summary)) == 0
    assert summary.read_text().startswith("### Environment <code>mern-pr-1</code> is removed")
    assert "mern-pr-1: no comment was written" in capsys.readouterr().err


def test_without_github_only_age_counts_and_that_is_said(
    sweep: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    some = Some(environment(1, days=1), environment(2, days=8))
    assert sweep(some) == 1
    assert some.removed == [2]
    assert "Which pull requests are closed is not known" in capsys.readouterr().err


# -- what is said


def test_what_runs_of_an_environment_is_said_in_each_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def state(live: Any, *revisions: tuple[int, str]) -> str:
        def newest(api: Any, name: str, namespace: str, status: str = "") -> Any:
            found = [item for item in revisions if status in ("", item[1])]
            if not found:
                return None
            number, word = found[-1]
            objects = [
                {
                    "kind": "Deployment",
                    "metadata": {"name": "s", "labels": {"app.kubernetes.io/component": "server"}},
                    "spec": {"template": {"spec": {"containers": [{"name": "s", "image": "s:1"}]}}},
                }
            ]
            return SimpleNamespace(revision=number, status=word, namespace=namespace, objects=lambda: objects)

        monkeypatch.setattr(record, "newest", newest)
        api: Any = SimpleNamespace(find=lambda path, **_: live)
        return listing.look(api, "mern-pr-1").state

    active, going = {"status": {"phase": "Active"}}, {"status": {"phase": "Terminating"}}
    assert state(None) == "nothing runs"
    assert state(going) == "is being deleted: its objects go"
    assert state(active) == "nothing is deployed"
    assert state(active, (1, "pending-install")) == "revision 1 is pending-install"
    assert state(active, (1, "deployed")) == "revision 1 serves"
    assert state(active, (1, "deployed"), (2, "failed")) == "revision 1 serves, revision 2 is failed"


def test_a_list_says_where_what_and_until_when() -> None:
    environments = [Environment(number=1, name="mern-pr-1", changed=NOW, is_updating=True)]
    images = {"mernClient": "registry.example:5000/c:1.4.0", "mernServer": f"r/s@sha256:{'ab' * 32}"}
    serving = Serving(state="revision 3 serves", is_served=True, url="http://pr-1.example.com", images=images)
    assert listing.lines(environments, {"mern-pr-1": serving}, TEMPLATE) == [
        "mern-pr-1  revision 3 serves; a run is at work",
        "    deployed 2026-05-01 12:00 UTC, lives until 2026-05-08 12:00 UTC",
        "    http://pr-1.example.com (no load balancer yet)",
        "    mernClient 1.4.0, mernServer sha256:abababababab",
        "1 of at most 2 environments (Pulumi.preview.yaml)",
    ]


def test_a_comment_says_where_what_and_how_long_and_no_host_gets_out_of_it() -> None:
    serving = Serving(
        state="revision 3 serves",
        is_served=True,
        url="http://pr-1.preview.example.com",
        images={"mernServer": "shop/server@sha256:0"},
    )
    text = report.of_up(Run(command="up", ok=True), "mern-pr-1", serving, TEMPLATE, NOW)
    assert text.splitlines()[0] == (
        "### Environment <code>mern-pr-1</code> is deployed: http://pr-1.preview.example.com"
    )
    assert "mernServer: shop/server@sha256:0" in text
    assert "There is no load balancer yet" in text
    assert "for 7 days: after 2026-05-08 12:00 UTC" in text
    evil = Serving(state="<b>@all", is_served=True, url="http://[x](https://evil.example)")
    text = report.of_up(Run(command="up", errors=["no <b>room"]), "mern-pr-1", evil, TEMPLATE, NOW)
    assert "The deployment of environment <code>mern-pr-1</code> failed" in text
    assert "no &lt;b&gt;room" in text
    assert "<b>" not in text
    text = report.of_up(Run(command="up", ok=True), "mern-pr-1", evil, TEMPLATE, NOW)
    assert "](https" not in text


# -- access


def test_helm_begins_when_the_right_to_deploy_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([False, False, True])
    asked: list[Any] = []

    def create(path: str, review: Any) -> Any:
        asked.append(review["spec"]["resourceAttributes"])
        return {"status": {"allowed": next(answers)}}

    api: Any = SimpleNamespace(create=create)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    namespaces._wait_for_access(api, "mern-pr-1")
    assert asked == [{"namespace": "mern-pr-1", "verb": "list", "resource": "secrets"}] * 3


def test_who_may_use_its_own_namespace_alone_is_told_of_no_records_before_that_is_there() -> None:
    """An API server answers 403 also for a namespace that is not there."""

    class Forbidding:
        missing = True
        find = Api.find

        def get(self, path: str, *_: str, **__: str) -> Any:
            if path.endswith("/secrets"):
                raise ApiError(403, {"message": "secrets is forbidden"})
            if self.missing:
                raise ABSENT
            return {}

    api: Any = Forbidding()
    assert record.newest(api, "mern", "mern-pr-1") is None
    api.missing = False
    with pytest.raises(ApiError, match="secrets is forbidden"):
        record.newest(api, "mern", "mern-pr-1")
