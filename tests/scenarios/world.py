# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is true after a run: as AWS describes it, as the databases hold it, as users felt it. Nothing is taken from records."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from runbook import Result, Runbook

from sandbox.client import Sandbox
from sandbox.patience import wait_until

EAST, WEST = "us-east-1", "us-west-2"
PRIMARY, REPLICA = "regami-db-primary", "regami-db-replica"
# Tags whose values are times: that they are there is what counts.
TIMES = ("sre.runbooks/promoted-at", "sre.runbooks/fenced-at")


@dataclass(frozen=True)
class World:
    sandbox: Sandbox
    runbook: Runbook

    def aws(self, service: str, region: str = EAST) -> Any:
        return self.sandbox.boto(service, region)

    def begin(self) -> None:
        """The first day, when the first rollout of everything is over."""
        self.sandbox.reset()
        for region in (EAST, WEST):
            wait_until(
                lambda region=region: self.service(region)["deployments"][0]["rolloutState"] == "COMPLETED", "rollout"
            )

    # ---- users ----------------------------------------------------------------------------------------------------

    def start_users(self, acknowledged: int = 10, **options: Any) -> None:
        """The load generator, once it has something to lose."""
        self.sandbox.control("load", action="start", **options)
        self.await_users(acknowledged)

    def acknowledged(self) -> list[dict]:
        """{id, acked, database ...} of every write that the application told a user was committed, as users noted it."""
        try:
            lines = (self.sandbox.home / "load" / "acks.jsonl").read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines[: lines.rfind("\n") + 1].splitlines()]

    def await_users(self, more: int = 5) -> None:
        """Until users have `more` acknowledgements than now."""
        goal = len(self.acknowledged()) + more
        wait_until(lambda: len(self.acknowledged()) >= goal, f"{more} more acknowledged writes")

    def stop_users(self, more: int = 5) -> dict:
        """What users saw, once they are served again and go home."""
        if more:
            self.await_users(more)
        return self.sandbox.control("load", action="stop")

    # ---- databases ------------------------------------------------------------------------------------------------

    def databases(self, region: str) -> dict[str, dict]:
        """As DescribeDBInstances has them, by name."""
        found = self.aws("rds", region).describe_db_instances()["DBInstances"]
        return {each["DBInstanceIdentifier"]: each for each in found}

    def database(self, region: str, name: str | None = None) -> dict:
        return self.databases(region)[name or self.names(region)["db_instance"]]

    def address(self, region: str, name: str | None = None) -> str:
        endpoint = self.database(region, name)["Endpoint"]
        return f"{endpoint['Address']}:{endpoint['Port']}"

    @contextmanager
    def session(self, region: str, user: str = "rdsadmin", secret: str = "rdsadmin", name: str | None = None) -> Any:
        """A function that runs one statement; by default as the provider, whom no fence keeps out."""
        host, _, port = self.address(region, name).partition(":")
        connection = psycopg2.connect(
            host=host,
            port=port,
            user=user,
            password=self.secret(secret),
            dbname=self.sandbox.state["db_name"],
            connect_timeout=3,
        )
        connection.autocommit = True

        def query(sql: str, *values: Any) -> list[tuple]:
            with connection.cursor() as cursor:
                cursor.execute(sql, values)
                return cursor.fetchall() if cursor.description else []

        try:
            yield query
        finally:
            connection.close()

    def app_session(self, region: str, name: str | None = None) -> Any:
        """As the application's own login."""
        return self.session(region, "regami", "db_app", name)

    def secret(self, name: str) -> str:
        return (self.sandbox.home / "secrets" / name).read_text()

    def secrets(self) -> list[str]:
        """Every password that this sandbox has made up."""
        return [path.read_text() for path in (self.sandbox.home / "secrets").iterdir()]

    def takes_writes(self, region: str, name: str | None = None) -> bool | None:
        """Whether a new session of the application may write, its security groups aside; None where nobody answers."""
        try:
            with self.session(region, name=name) as query:
                settings = [each for (each,) in query("SELECT unnest(setconfig) FROM pg_db_role_setting")]
                in_recovery = query("SELECT pg_is_in_recovery()")[0][0]
        except psycopg2.OperationalError:
            return None
        return not in_recovery and "default_transaction_read_only=on" not in settings

    # ---- the rest -------------------------------------------------------------------------------------------------

    def names(self, region: str) -> dict:
        return self.sandbox.state["regions"][region]

    def service(self, region: str) -> dict:
        names = self.names(region)
        found = self.aws("ecs", region).describe_services(cluster=names["cluster"], services=[names["service"]])
        return found["services"][0]

    def version(self, region: str) -> str:
        """The tag of the image that the service is to run."""
        found = self.aws("ecs", region).describe_task_definition(taskDefinition=self.service(region)["taskDefinition"])
        return found["taskDefinition"]["containerDefinitions"][0]["image"].rpartition(":")[2]

    def is_settled(self, region: str) -> bool:
        """Has the last deployment ended well, with every task?"""
        found = self.service(region)
        states = [each["rolloutState"] for each in found["deployments"]]
        return states == ["COMPLETED"] and found["runningCount"] == found["desiredCount"]

    def healthy_targets(self, region: str) -> int:
        answer = self.aws("elbv2", region).describe_target_health(TargetGroupArn=self.names(region)["target_group_arn"])
        return [each["TargetHealth"]["State"] for each in answer["TargetHealthDescriptions"]].count("healthy")

    def record_sets(self) -> list[dict]:
        answer = self.aws("route53").list_resource_record_sets(HostedZoneId=self.sandbox.state["hosted_zone_id"])
        return [each for each in answer["ResourceRecordSets"] if each["Type"] not in ("NS", "SOA")]

    def lease(self, region: str = WEST) -> dict | None:
        """The item of the service's lease, its types aside."""
        answer = self.aws("dynamodb", region).get_item(
            TableName=self.sandbox.state["lock_table"], Key={"name": {"S": "regami-api"}}, ConsistentRead=True
        )
        item = answer.get("Item")
        return item and {key: next(iter(value.values())) for key, value in item.items()}

    def snapshot(self) -> dict:
        """All that a run may change, under names that are the same in every world."""
        text = json.dumps({region: self._regional(region) for region in (EAST, WEST)} | self._global(), default=str)
        return json.loads(self.anonymous(text))

    def anonymous(self, text: str) -> str:
        """`text` with names that differ from world to world replaced by what they name."""
        names = {self.sandbox.state["hosted_zone_id"]: "the zone", f":{self.sandbox.state['http_port']}/": ":80/"}
        for region, known in self.sandbox.state["regions"].items():
            names[known["db_security_group"]] = f"open-{region}"
            names[known["quarantine_security_group"]] = f"quarantine-{region}"
            for name in self.databases(region):
                names[self.address(region, name)] = name
                names[f'port": {self.address(region, name).rpartition(":")[2]}'] = f'port": "of {name}"'
        for mine, everybodys in names.items():
            text = text.replace(mine, everybodys)
        made_up = (
            r"(?<=database-password-)\w{6}|(?<=-retired-)\d{14}|(?<=/)[0-9a-f]{16}\b|(?<=k8s-shop-api-)[0-9a-f]{8}"
            r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
        )
        # The cluster's Ingress has an address of its own in every world.
        text = re.sub(r'("front\.regami\.test\."[^}]*"Value": ")[\d.]+', r"\1", text)
        return re.sub(made_up, "", text)

    def _regional(self, region: str) -> dict:
        ecs, names, service = self.aws("ecs", region), self.names(region), self.service(region)
        running = ecs.describe_task_definition(taskDefinition=service["taskDefinition"], include=["TAGS"])
        scaling = self.aws("application-autoscaling", region).describe_scalable_targets(ServiceNamespace="ecs")
        return {
            "databases": {
                name: {
                    "status": each["DBInstanceStatus"],
                    "source": each.get("ReadReplicaSourceDBInstanceIdentifier"),
                    "replicas": each["ReadReplicaDBInstanceIdentifiers"],
                    "backups": each["BackupRetentionPeriod"],
                    "multi_az": each["MultiAZ"],
                    "groups": [group["VpcSecurityGroupId"] for group in each["VpcSecurityGroups"]],
                    "tags": {tag["Key"]: "a time" if tag["Key"] in TIMES else tag["Value"] for tag in each["TagList"]},
                    "takes_writes": self.takes_writes(region, name),
                }
                for name, each in self.databases(region).items()
            },
            "service": {
                "desired": service["desiredCount"],
                "running": service["runningCount"],
                "deployments": [(each["status"], each["rolloutState"]) for each in service["deployments"]],
                "healthy_targets": self.healthy_targets(region),
                "revision": service["taskDefinition"].rpartition("/")[2],
                "containers": running["taskDefinition"]["containerDefinitions"],
                "revision_tags": running.get("tags"),
            },
            "revisions": ecs.list_task_definitions(familyPrefix=names["task_family"])["taskDefinitionArns"],
            "scaling": [
                {key: each.get(key) for key in ("ResourceId", "MinCapacity", "MaxCapacity", "SuspendedState")}
                for each in scaling["ScalableTargets"]
            ],
        }

    def _global(self) -> dict:
        lease = self.lease()
        free = lease is None or lease["run"] == "released"
        return {"records": self.record_sets(), "lease": "free" if free else lease["run"]}


@dataclass(frozen=True)
class Switchover:
    """A planned switchover under writes, from the plan to a second run. `*_state`: snapshots after each."""

    before: dict
    planned: Result
    planned_state: dict
    run: Result
    users: dict
    state: dict
    again: Result
    again_state: dict
