# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ecs_run_sql: its plan after any past, and that one file is run once whatever becomes of the answers."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import zlib

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import one_off_task, schema_repair, schema_runner
from ansible_collections.sre.runbooks.plugins.modules import ecs_run_sql
from ansible_collections.sre.runbooks.tests.unit.ecs_region import (
    ARN,
    CLUSTER,
    Region,
    carry_out,
    refusal,
    stopped_task,
)

SQL = "ALTER TABLE rows ADD COLUMN IF NOT EXISTS tenant text DEFAULT 'hidden';"
SHA = hashlib.sha256(SQL.encode()).hexdigest()
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}}
LOG = {
    "logDriver": "awslogs",
    "options": {"awslogs-group": "/ecs/regami-api", "awslogs-region": "us-west-2", "awslogs-stream-prefix": "app"},
}


def line(event, **more):
    return json.dumps({schema_runner.MARK: dict(more, event=event)})


BEGUN = line("begun", key="k")
FOUND = line("found", database=["a1"], image=["b2"], transaction=77)
COMMITTED = line("committed", database=["b2"], image=["b2"], transaction=77)
# What a task that goes well writes, and how one ends that does not.
WELL = (BEGUN, FOUND, "NOTICE:  column exists, skipping", COMMITTED)


class Tasks(Region):
    """A region whose one-off tasks end at once. `writes` are the lines of the next one, `code` is its exit code."""

    def __init__(self):
        super().__init__(desired=2)
        self.service |= {"clusterArn": f"{ARN}cluster/{CLUSTER}", "serviceArn": f"{ARN}service/{CLUSTER}/regami"}
        self.service |= {"launchType": "FARGATE", "platformVersion": "1.4.0", "networkConfiguration": NETWORK}
        self.container = self.revisions[3]["containerDefinitions"][0]
        self.container["logConfiguration"] = LOG
        self.writes, self.code, self.stays = WELL, 0, False
        self.logs, self.tokens, self.requests = {}, {}, []

    def task(self, number, started_by, lines, code=0, last="STOPPED"):
        arn = f"{ARN}task/{CLUSTER}/{number}"
        self.logs[f"app/app/{number}"] = lines
        task = stopped_task(number, started_by, createdAt=f"2026-01-01 00:{number:02}", lastStatus=last)
        task |= {"desiredStatus": last, "containers": [{"name": "app", "exitCode": code}]}
        self.tasks.append(task)
        return arn

    def run_task(self, clientToken, **request):
        if self.tokens.setdefault(clientToken, request) != request:
            raise refusal("ConflictException", "The provided clientToken is already in use")
        known = [task for task in self.tasks if task.get("token") == clientToken]
        if not known:
            self.requests.append(request)
            self.task(
                len(self.tasks) + 1,
                request["startedBy"],
                self.writes,
                self.code,
                "RUNNING" if self.stays else "STOPPED",
            )
            known = [self.tasks[-1]]
            known[0]["token"] = clientToken
        return {"tasks": known, "failures": []}

    def list_tasks(self, cluster, serviceName=None, desiredStatus="RUNNING", startedBy=None, family=None):
        found = [task for task in self.tasks if task["desiredStatus"] == desiredStatus]
        return {"taskArns": [task["taskArn"] for task in found if startedBy in (None, task["startedBy"])]}

    def get_log_events(self, logGroupName, logStreamName, startFromHead, region, nextToken=None):
        if nextToken or not self.logs[logStreamName]:
            return {"events": [], "nextForwardToken": nextToken}
        return {"events": [{"message": each} for each in self.logs[logStreamName]], "nextForwardToken": "end"}


@pytest.fixture
def sql(tmp_path):
    path = tmp_path / "fix.sql"
    path.write_text(SQL)
    return str(path)


@pytest.fixture
def run(monkeypatch, sql):
    monkeypatch.setattr(one_off_task, "LOG_SECONDS", 0)

    def run(region, **given):
        given = {"sql_file": sql, "reviewed_sha256": SHA} | given
        return carry_out(monkeypatch, ecs_run_sql, ecs_run_sql.EcsRunSql, region, **given)

    return run


def look(run, region, **given):
    return run(region, sql_file=None, reviewed_sha256=None, **given)


def test_it_runs_where_the_service_runs_with_what_the_service_has(run):
    region = Tasks()
    result = run(region, stamp="head", expect_version="a1")
    (request,) = region.requests
    placed = ("taskDefinition", "launchType", "platformVersion", "networkConfiguration")
    assert {key: request[key] for key in placed} == {key: region.service[key] for key in placed}
    (override,) = request["overrides"]["containerOverrides"]
    assert override["name"] == "app" and override["command"][:2] == ["python", "-c"]
    assert {each["name"] for each in override["environment"]} >= {"PGSSLMODE", schema_runner.ASK}
    assert {"name": "PGSSLMODE", "value": "require"} in override["environment"]
    assert (result["changed"], result["exit_code"]) == (True, 0)
    assert "reviewed" in result["undo"][0]["instead"]
    assert result["alembic"] == {"before": ["a1"], "after": ["b2"], "image": ["b2"], "in_sync": True}
    assert result["log_lines"] == ["NOTICE: column exists, skipping"]
    assert "hidden" not in json.dumps(result) and "hunter2" not in json.dumps(result)


def test_check_mode_shows_the_statements_and_starts_nothing(run):
    region = Tasks()
    result = run(region, check=True)
    assert region.changes == []
    assert result["after"]["statements"] == ["ALTER TABLE rows ADD COLUMN IF NOT EXISTS tenant text DEFAULT ?"]
    assert [step["do"] for step in result["steps"]] == ["run", "settle"]
    assert "app.DATABASE_URL=old.example:5432" in result["steps"][0]["what"]


def test_what_was_done_is_not_done_again(run):
    region = Tasks()
    run(region)
    again = run(region)
    assert (again["changed"], again["steps"], len(region.requests)) == (False, [], 1)
    assert again["alembic"]["in_sync"] is True and "attempt=2" in again["notes"][0]
    assert run(region, attempt=2)["changed"] and len(region.requests) == 2


def test_one_that_is_under_way_is_waited_for(run):
    """As after a kill: the task of the run before goes on by itself."""
    region = Tasks()
    region.stays = True
    run(region, wait_timeout=0.01)

    def describe_tasks(cluster, tasks, describe=region.describe_tasks):
        found = copy.deepcopy(describe(cluster, tasks))
        region.tasks[0] |= {"lastStatus": "STOPPED", "desiredStatus": "STOPPED"}
        return found

    region.describe_tasks = describe_tasks
    result = run(region)
    assert [step["do"] for step in result["steps"]] == ["settle"]
    assert (result["changed"], result["after"]["applied"], len(region.requests)) == (False, True, 1)


@pytest.mark.parametrize("fate", ["lose", "drop"])
def test_a_lost_answer_starts_one_task(run, fate):
    region = Tasks()
    getattr(region, fate)["run_task"] = 1
    assert not run(region)["failed"]
    assert len(region.requests) == 1


def test_a_task_that_is_not_listed_yet_is_not_started_twice(run):
    """ListTasks may lag behind: the token is the same, since the past that can be seen is."""
    region = Tasks()
    run(region)
    seen, region.list_tasks = region.list_tasks, lambda **_filters: {"taskArns": []}
    run(region)
    assert len(region.requests) == 1
    region.list_tasks = seen


def test_a_failure_is_rolled_back_and_told_and_the_next_run_tries_again(run):
    region = Tasks()
    region.writes, region.code = (
        (BEGUN, FOUND, line("failed", error="LockNotAvailable: lock timeout", transaction=77)),
        1,
    )
    result = run(region)
    assert result["failed"] and not result["changed"]
    for part in ("LockNotAvailable: lock timeout", "exit code 1", "rolled back"):
        assert part in result["msg"]
    region.writes, region.code = WELL, 0
    again = run(region)
    assert again["changed"] and len(region.requests) == 2
    assert "did not do it: LockNotAvailable" in again["notes"][0]
    assert ask_of(region.requests[1])["after"] is None


def test_after_a_commit_that_nobody_saw_the_next_task_asks_the_database(run):
    region = Tasks()
    region.writes, region.code = (BEGUN, FOUND), 137
    result = run(region)
    assert result["failed"] and result["changed"] and "may be committed" in result["msg"]
    region.writes, region.code = WELL, 0
    run(region)
    assert ask_of(region.requests[1])["after"] == 77


def ask_of(request):
    variables = {each["name"]: each["value"] for each in request["overrides"]["containerOverrides"][0]["environment"]}
    return json.loads(zlib.decompress(base64.b64decode(variables[schema_runner.ASK])))


def test_where_no_log_tells_the_exit_code_does(run):
    region = Tasks()
    region.container["logConfiguration"] = {"logDriver": "awsfirelens"}
    assert run(region)["after"]["applied"] is True
    region, region.container["logConfiguration"] = Tasks(), {"logDriver": "awsfirelens"}
    region.container["logConfiguration"], region.code = {"logDriver": "awsfirelens"}, 137
    assert "may be committed" in run(region)["msg"]
    refused = run(region)
    assert "nothing tells whether" in refused["msg"] and "attempt=2" in refused["msg"] and len(region.requests) == 1


def test_an_image_whose_entry_point_swallows_the_command(run):
    region = Tasks()
    region.writes = ("server starting",)
    assert "entry point" in run(region)["msg"]


def test_a_look_is_no_change_and_is_taken_anew(run):
    region = Tasks()
    region.writes = (BEGUN, line("looked", database=["a1"], image=["b2"]))
    first, second = look(run, region), look(run, region)
    assert (first["changed"], second["changed"], len(region.requests)) == (False, False, 2)
    assert first["alembic"] == {"before": ["a1"], "after": ["a1"], "image": ["b2"], "in_sync": False}
    assert look(run, region, check=True)["alembic"] is None and len(region.requests) == 2


def test_an_entry_point_that_is_a_shell_gets_one_word():
    service = {"clusterArn": "c", "launchType": "FARGATE"}
    chosen = {"name": "app", "entryPoint": ["sh", "-c"]}
    request = one_off_task.request(
        service, {"taskDefinitionArn": "d"}, chosen, ["python", "-c", "print('a b')"], {}, "x"
    )
    assert request["overrides"]["containerOverrides"][0]["command"] == ["'python' '-c' 'print('\\''a b'\\'')'"]


def test_codedeploys_primary_task_set_says_what_runs():
    sets = [{"status": "ACTIVE", "taskDefinition": "old"}, {"status": "PRIMARY", "taskDefinition": "new"}]
    found = one_off_task.deployed({"taskDefinition": "first", "launchType": "FARGATE", "taskSets": sets})
    assert (found["taskDefinition"], found["launchType"]) == ("new", "FARGATE")


def test_the_overrides_fit_with_room_for_a_file():
    command = schema_repair.command("python")
    assert len(json.dumps(command)) < one_off_task.LONGEST_OVERRIDES / 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"reviewed_sha256": "0" * 64}, f"its SHA-256 is {SHA}"),
        ({"container": "ap"}, "has no container ap (there are: app)"),
        ({"login_variables": {"url": "DB_URL"}}, "has no variable DB_URL"),
        ({"login_variables": {}}, "names neither url nor host"),
        ({"expect_version": "a1'; DROP"}, "is no revision"),
        ({"sql_file": "nowhere.sql"}, "check sql_file"),
    ],
)
def test_refuses(run, given, says):
    region = Tasks()
    if "login_variables" in given:
        names = dict.fromkeys(("url", "host", "port", "user", "password", "name"))
        given = {"login_variables": names | given["login_variables"]}
    result = run(region, **given)
    assert result["failed"] and says in result["msg"], result["msg"]
    assert region.changes == []


def test_refuses_a_container_whose_end_would_not_end_the_task(run):
    region = Tasks()
    region.container["essential"] = False
    assert "is not essential" in run(region)["msg"]


def test_refuses_to_guess_the_container(run):
    region = Tasks()
    region.service["loadBalancers"] = []
    region.revisions[3]["containerDefinitions"].append({"name": "proxy"})
    assert "containers app, proxy: say which" in run(region)["msg"]
    assert any("starts proxy" in note for note in run(region, container="app")["notes"])


def test_refuses_a_file_that_ecs_would_not_take(run, tmp_path):
    large = tmp_path / "large.sql"
    large.write_text("".join(f"SELECT '{hashlib.sha256(bytes([n])).hexdigest()}';" for n in range(200)))
    region = Tasks()
    sha = hashlib.sha256(large.read_bytes()).hexdigest()
    result = run(region, sql_file=str(large), reviewed_sha256=sha)
    assert run(region, check=True, sql_file=str(large), reviewed_sha256=sha)["msg"] == result["msg"]
    assert "8192" in result["msg"] and "split the file" in result["msg"] and region.changes == []
