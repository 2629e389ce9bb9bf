# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recovery API as a team runs it beside its service: a process of its own that rolls the ECS service back through AWS.

Paths and bodies are those of the courtcase runbook; what it says to them is what that team's API says, its traps included:
an error of a rollback is answered with 200 and status "failed", "latest" is no snapshot, dry_run is true where it is not
given, a snapshot of the present state is taken before each rollback, and the rollback sets the snapshot's desired count.

    GET  /api/v1/deployment-orchestration/status/CLUSTER/SERVICE
    GET  /api/v1/disaster-recovery/snapshots/CLUSTER/SERVICE
    POST /api/v1/disaster-recovery/snapshot/CLUSTER/SERVICE
    POST /api/v1/disaster-recovery/rollback/CLUSTER/SERVICE            {"snapshot_id", "dry_run"}
    POST /api/v1/disaster-recovery/emergency-scale/CLUSTER/SERVICE     {"target_count", "reason"}
    POST /api/v1/disaster-recovery/execute-plan/service_rollback       {"cluster_name", "service_name", "parameters"}
    GET  /api/v1/disaster-recovery/operation/ID
    GET  /api/v1/health/{comprehensive,score,database}, /api/v1/diagnostics/run-diagnostics
    GET  /api/v1/diagnostics/issues?severity=critical
    GET  /api/v1/resource-optimization/analyze/CLUSTER/SERVICE, /api/v1/monitoring/metrics/CLUSTER/SERVICE
    GET  /api/v1/monitoring/alerts/status
    POST /api/v1/deployment-validation/{smoke-test,api-validation}/CLUSTER/SERVICE
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

# Requests that the health score is made of: enough to tell a service that fails half of them.
PROBES = 8
# Snapshots that are kept.
KEPT = 10


class Refused(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Recovery:
    """What the API knows and does.

    `settings`: endpoint_url, region, app_url, app_host, and snapshots_file, which outlives this process.
    """

    def __init__(self, settings: dict) -> None:
        self._settings = settings
        self._file = Path(settings["snapshots_file"])
        self._operations: dict[str, dict] = {}
        self._lock = threading.Lock()

    @functools.cached_property
    def _ecs(self) -> Any:
        import boto3  # takes longer to load than everything else here

        session = boto3.Session(aws_access_key_id="recovery", aws_secret_access_key="recovery")
        return session.client("ecs", region_name=self._settings["region"], endpoint_url=self._settings["endpoint_url"])

    def _service(self, cluster: str, service: str) -> dict:
        found = self._ecs.describe_services(cluster=cluster, services=[service])["services"]
        if not found:
            raise Refused(500, f"Service {service} not found in cluster {cluster}")
        return found[0]

    # ---- disaster recovery -----------------------------------------------------------------------------------------

    def status(self, cluster: str, service: str) -> dict:
        found = self._service(cluster, service)
        # A service of CodeDeploy has task sets instead.
        rolling = any(each["rolloutState"] == "IN_PROGRESS" for each in found["deployments"][:1])
        names = {"cluster_name": cluster, "service_name": service, "timestamp": _now().isoformat()}
        return names | {
            "monitoring": {"status": "deploying" if rolling else "stable"},
            "health": {"overall_score": self.score()["score"]},
        }

    def snapshots(self, cluster: str, service: str) -> dict:
        listed = sorted(self._snapshots, key=lambda each: each["timestamp"], reverse=True)
        shown = [{key: each[key] for key in ("snapshot_id", "timestamp")} for each in listed]
        return {"cluster_name": cluster, "service_name": service, "total_snapshots": len(shown), "snapshots": shown}

    def snapshot(self, cluster: str, service: str) -> dict:
        return {"status": "success", "snapshot": self._take(self._service(cluster, service))}

    def _take(self, service: dict) -> dict:
        with self._lock:
            # Named by the second: two of one second would be one file.
            last = max((datetime.fromisoformat(each["timestamp"]) for each in self._snapshots), default=_now())
            taken = as_snapshot(
                max(_now(), last + timedelta(seconds=1)), service["taskDefinition"], service["desiredCount"]
            )
            self._file.write_text(json.dumps([*self._snapshots, taken][-KEPT:]))
        return taken

    @property
    def _snapshots(self) -> list[dict]:
        return json.loads(self._file.read_text())

    def roll_back(self, cluster: str, service: str, body: dict) -> dict:
        if not body.get("snapshot_id"):
            raise Refused(500, "Rollback failed: 400: snapshot_id is required")
        names = {"cluster_name": cluster, "service_name": service, "rollback_timestamp": _now().isoformat()}
        return names | self._roll_back(cluster, service, body["snapshot_id"], body.get("dry_run", True))

    def _roll_back(self, cluster: str, service: str, snapshot_id: str, dry_run: bool) -> dict:
        snapshot = next((each for each in self._snapshots if each["snapshot_id"] == snapshot_id), None)
        try:
            if snapshot is None:
                raise ValueError(f"Snapshot {snapshot_id} not found")
            if dry_run:
                changes = {
                    "task_definition": snapshot["task_definition_arn"],
                    "desired_count": snapshot["desired_count"],
                }
                return {"status": "simulated", "snapshot_timestamp": snapshot["timestamp"], "changes": changes}
            current = self._take(self._service(cluster, service))
            updated = self._ecs.update_service(
                cluster=cluster,
                service=service,
                taskDefinition=snapshot["task_definition_arn"],
                desiredCount=snapshot["desired_count"],
            )["service"]
        except Exception as error:  # as the API does: whatever it was, it is told in a good answer
            return {"status": "failed", "error_message": str(error)}
        return {
            "status": "completed",
            "message": "Service rollback completed successfully",
            "snapshot_id": snapshot_id,
            "current_snapshot_id": current["snapshot_id"],
            "rollback_details": {
                "task_definition": updated["taskDefinition"],
                "desired_count": updated["desiredCount"],
            },
        }

    def scale(self, cluster: str, service: str, body: dict) -> dict:
        taken = self._take(self._service(cluster, service))
        self._ecs.update_service(cluster=cluster, service=service, desiredCount=int(body["target_count"]))
        return {"status": "completed", "previous_count": taken["desired_count"], "new_count": int(body["target_count"])}

    def execute(self, plan: str, body: dict) -> dict:
        if plan != "service_rollback":
            raise Refused(500, f"Recovery plan execution failed: Recovery plan {plan} not found")
        operation = {"operation_id": f"{plan}_{_now():%Y%m%d_%H%M%S}", "plan_id": plan, "status": "in_progress"}
        self._operations[operation["operation_id"]] = operation
        threading.Thread(target=self._execute, args=(operation, body), daemon=True).start()
        return {"status": "started", "operation_id": operation["operation_id"], "plan_id": plan}

    def _execute(self, operation: dict, body: dict) -> None:
        cluster, service = body["cluster_name"], body["service_name"]
        newest = self.snapshots(cluster, service)["snapshots"][0]["snapshot_id"]
        snapshot_id = (body.get("parameters") or {}).get("snapshot_id") or newest
        result = self._roll_back(cluster, service, snapshot_id, dry_run=False)
        operation["error_messages"] = [result["error_message"]] if result["status"] == "failed" else []
        operation["status"] = result["status"]

    def operation(self, operation_id: str) -> dict:
        if operation_id not in self._operations:
            raise Refused(404, f"Recovery operation {operation_id} not found")
        return self._operations[operation_id]

    # ---- health and validation -------------------------------------------------------------------------------------

    def score(self) -> dict:
        """The share of real requests to the service that are answered without an error of the server."""
        good = sum(self._ask("/v1/rows/0") < 500 for _probe in range(PROBES))
        return {"score": round(100 * good / PROBES, 1)}

    def comprehensive(self) -> dict:
        score = self.score()["score"]
        database = self._ask("/health?check=db") == 200
        return {
            "overall_health_score": score,
            "status": "healthy" if score > 80 and database else "unhealthy",
            "components": {"api": {"healthy": score == 100}, "database": {"healthy": database}},
        }

    def database(self) -> dict:
        healthy = self._ask("/health?check=db") == 200
        return {"status": "healthy" if healthy else "unhealthy", "connected": healthy}

    def diagnostics(self) -> dict:
        issues = self._issues()
        return {
            "timestamp": _now().isoformat(),
            "status": "issues_found" if issues else "ok",
            "total_issues": len(issues),
        }

    def issues(self, severity: str | None) -> dict:
        found = [each for each in self._issues() if severity in (None, each["severity"])]
        return {"total_issues": len(found), "issues": found}

    def _issues(self) -> list[dict]:
        """By the same requests that its score is made of."""
        score, found = self.score()["score"], []
        if score < 100:
            severity = "critical" if score <= 80 else "warning"
            found.append({"severity": severity, "component": "api", "message": f"{100 - score:g} of 100 requests fail"})
        if self._ask("/health?check=db") != 200:
            found.append({"severity": "critical", "component": "database", "message": "the database is not connected"})
        return found

    def resources(self, cluster: str, service: str) -> dict:
        found = self._service(cluster, service)
        short = found["runningCount"] < found["desiredCount"]
        advice = [{"action": "scale_up", "reason": "fewer tasks run than are wanted"}] if short else []
        tasks = {"running": found["runningCount"], "desired": found["desiredCount"]}
        return {"cluster_name": cluster, "service_name": service, "tasks": tasks, "recommendations": advice}

    def alerts(self) -> dict:
        active = [each for each in self._issues() if each["severity"] == "critical"]
        return {"status": "alerting" if active else "ok", "active_alerts": active}

    def metrics(self, cluster: str, service: str) -> dict:
        return {"cluster_name": cluster, "service_name": service, "error_rate": round(100 - self.score()["score"], 1)}

    def validate(self, cluster: str, service: str) -> dict:
        tests = {"health": self._ask("/health") == 200, "rows": self._ask("/v1/rows/0") in (200, 404)}
        status = "passed" if all(tests.values()) else "failed"
        return {"cluster_name": cluster, "service_name": service, "status": status, "tests": tests}

    def _ask(self, path: str) -> int:
        address, _, port = self._settings["app_url"].removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(address, int(port), timeout=5)
        try:
            connection.request("GET", path, headers={"Host": self._settings["app_host"]})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 599
        finally:
            connection.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self._serve(json.loads(text or b"{}"))
        except ValueError:
            self._answer(422, {"detail": "not JSON"})

    def _serve(self, body: dict) -> None:
        kind, changes = self.server.fault(), self.command == "POST" and body.get("dry_run") is not True
        if kind == "slow":
            time.sleep(self.server.settings["slow_seconds"])
        if kind == "error":
            return self._answer(500, {"detail": "Internal Server Error"})
        if self.headers.get("Authorization") != f"Bearer {self.server.settings['token']}":
            return self._answer(401, {"detail": "Not authenticated"})
        try:
            if kind == "refused" and changes:
                answer: Any = {"status": "failed", "error_message": "no credentials for UpdateService"}
            else:
                answer = self._route(body)
        except Refused as refused:
            return self._answer(refused.status, {"detail": refused.detail})
        except Exception as error:
            return self._answer(500, {"detail": f"{type(error).__name__}: {error}"})
        if kind == "lost-answer" and changes:
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        return self._answer(200, answer)

    def _route(self, body: dict) -> dict:
        api = self.server.recovery
        if self.path == "/health":
            return {"status": "healthy"}
        path, _, query = self.path.removeprefix("/api/v1/").partition("?")
        match (self.command, *path.split("/")):
            case ("GET", "deployment-orchestration", "status", cluster, service):
                return api.status(cluster, service)
            case ("GET", "disaster-recovery", "snapshots", cluster, service):
                return api.snapshots(cluster, service)
            case ("POST", "disaster-recovery", "snapshot", cluster, service):
                return api.snapshot(cluster, service)
            case ("POST", "disaster-recovery", "rollback", cluster, service):
                return api.roll_back(cluster, service, body)
            case ("POST", "disaster-recovery", "emergency-scale", cluster, service):
                return api.scale(cluster, service, body)
            case ("POST", "disaster-recovery", "execute-plan", plan):
                return api.execute(plan, body)
            case ("GET", "disaster-recovery", "operation", operation_id):
                return api.operation(operation_id)
            case ("GET", "health", "score"):
                return api.score()
            case ("GET", "health", "comprehensive"):
                return api.comprehensive()
            case ("GET", "health", "database"):
                return api.database()
            case ("GET", "diagnostics", "run-diagnostics"):
                return api.diagnostics()
            case ("GET", "diagnostics", "issues"):
                return api.issues(dict(parse_qsl(query)).get("severity"))
            case ("GET", "resource-optimization", "analyze", cluster, service):
                return api.resources(cluster, service)
            case ("GET", "monitoring", "alerts", "status"):
                return api.alerts()
            case ("GET", "monitoring", "metrics", cluster, service):
                return api.metrics(cluster, service)
            case ("POST", "deployment-validation", "smoke-test" | "api-validation", cluster, service):
                return api.validate(cluster, service)
        raise Refused(404, "Not Found")

    def _answer(self, status: int, answer: dict) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        print(time.strftime("%H:%M:%S"), *args[1:], flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, settings: dict) -> None:
        super().__init__((settings["host"], settings["port"]), Handler)
        self.settings, self.recovery = settings, Recovery(settings)

    def fault(self) -> str:
        """What the sandbox wants to go wrong now."""
        try:
            return Path(self.settings["fault_file"]).read_text()
        except OSError:
            return ""

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nobody's error."""


def as_snapshot(taken: datetime, task_definition_arn: str, desired_count: int) -> dict:
    return {
        "snapshot_id": taken.strftime("%Y%m%d_%H%M%S"),
        "timestamp": taken.isoformat(timespec="seconds"),
        "task_definition_arn": task_definition_arn,
        "desired_count": desired_count,
    }


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


if __name__ == "__main__":
    Server(json.loads(os.environ["RECOVERY_SETTINGS"])).serve_forever()
