# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DB parameter groups: what is written in one reaches PostgreSQL at its next restart, or at once where it is dynamic.

https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_WorkingWithParamGroups.html and the API reference of
ModifyDBParameterGroup, DescribeDBParameters and DBParameterGroupStatus. A change shows in the group at once and reaches
the instances a moment later: who reboots within that moment has rebooted for nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .instance_classes import memory_of

if TYPE_CHECKING:
    from moto.rds.models import DBInstance, DBParameterGroup, RDSBackend

    from .world import World

GROUP, FAMILY = "regami-postgres16", "postgres16"
# What the databases of the first day run with, less than the class would give.
MAX_CONNECTIONS = 100
_MOST_PARAMETERS = 20  # in one ModifyDBParameterGroup


@dataclass(frozen=True)
class _Known:
    """A parameter of the family: `static` ones need a restart; `default` is RDS's own, None where PostgreSQL's holds."""

    static: bool
    low: int
    high: int
    default: str | None = None
    description: str = ""


# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Appendix.PostgreSQL.CommonDBATasks.Parameters.html
KNOWN = {
    "idle_in_transaction_session_timeout": _Known(False, 0, 2147483647, "86400000", "(ms) Sets the maximum idle time"),
    "log_min_duration_statement": _Known(False, -1, 2147483647, None, "(ms) Logs statements that take longer"),
    "max_connections": _Known(
        True, 6, 8388607, "LEAST({DBInstanceClassMemory/9531392},5000)", "Sets the number of concurrent connections."
    ),
    "max_prepared_transactions": _Known(True, 0, 8388607, "0", "Sets the number of prepared transactions."),
    "statement_timeout": _Known(False, 0, 2147483647, None, "(ms) Sets the maximum duration of a statement."),
    "work_mem": _Known(False, 64, 2147483647, None, "(kB) Sets the memory of a sort or hash table."),
}
_FORMULA = re.compile(r"(?:LEAST\()?\{DBInstanceClassMemory/(\d+)\}(?:,(\d+)\))?")
_world: World


def _refuse(code: str, message: str) -> Exception:
    from moto.rds.exceptions import RDSClientError

    return RDSClientError(code, message)


# ---- what an instance has of its group ---------------------------------------------------------------------------


def group_of(instance: DBInstance) -> DBParameterGroup:
    return instance.db_parameter_groups()[0]


def settings_of(instance: DBInstance) -> dict[str, str]:
    """What the server of `instance` is started with now; from here on the instance runs these."""
    group = group_of(instance)
    instance.running_parameters = (group.name, dict(group.published))
    values = {"max_connections": KNOWN["max_connections"].default, **group.published}
    return {name: str(_number(value, instance.db_instance_class)) for name, value in values.items()}


def _number(value: str, instance_class: str) -> int:
    """A number as it is, a formula for the class."""
    found = _FORMULA.fullmatch(value.replace(" ", ""))
    if found is None:
        return int(value)
    divisor, limit = found.groups()
    number = memory_of(instance_class) // int(divisor)
    return min(number, int(limit)) if limit else number


def _statuses(instance: DBInstance) -> list[dict[str, str]]:
    group = group_of(instance)
    if instance.parameters_applying:
        status = "applying"
    elif instance.running_parameters in (None, (group.name, group.published)):
        status = "in-sync"
    else:
        status = "pending-reboot"
    return [{"DBParameterGroupName": group.name, "ParameterApplyStatus": status}]


def attach(instance: DBInstance, name: str) -> None:
    """Associate the group `name`, which must exist and be of the instance's family; in force after a reboot."""
    from moto.rds.exceptions import DBParameterGroupNotFoundError

    default = instance.default_db_parameter_group_details()
    if name != default[1]:
        group = instance.backend.db_parameter_groups.get(name)
        if group is None:
            raise DBParameterGroupNotFoundError(name)
        if group.family != default[0]:
            raise _refuse(
                "InvalidParameterCombination",
                f"The parameter group {name} with DBParameterGroupFamily {group.family} cannot be used for this "
                f"instance. Please use a parameter group with DBParameterGroupFamily {default[0]}",
            )
    instance.db_parameter_group_name = name


# ---- what the API does ---------------------------------------------------------------------------------------------


def modify_db_parameter_group(
    backend: RDSBackend, db_parameter_group_name: str, db_parameter_group_parameters: Any
) -> DBParameterGroup:
    from moto.rds.exceptions import DBParameterGroupNotFoundError

    name, wanted = db_parameter_group_name.lower(), list(db_parameter_group_parameters)
    group = backend.db_parameter_groups.get(name)
    if group is None:
        raise DBParameterGroupNotFoundError(name)
    if name.startswith("default."):
        raise _refuse("InvalidParameterValue", "Cannot modify a default parameter group.")
    if len(wanted) > _MOST_PARAMETERS:
        raise _refuse("InvalidParameterValue", f"At most {_MOST_PARAMETERS} parameters can be modified at a time.")
    for each in wanted:
        _refuse_wrong(each)
    group.update_parameters(wanted)
    for each in wanted:
        _tell(group, each)
    _world.background(_publish, backend, group, wanted)
    return group


def _refuse_wrong(each: dict[str, str]) -> None:
    name, value, method = (each.get(key, "") for key in ("ParameterName", "ParameterValue", "ApplyMethod"))
    known = KNOWN.get(name)
    if known is None:
        raise _refuse("InvalidParameterValue", f"Could not find parameter with name: {name}")
    if method not in ("immediate", "pending-reboot"):
        raise _refuse("InvalidParameterValue", f"Invalid apply method: {method}")
    if known.static and method == "immediate":
        raise _refuse("InvalidParameterCombination", "cannot use immediate apply method for static parameter")
    is_number = re.fullmatch(r"-?\d+", value) and known.low <= int(value) <= known.high
    if not is_number and not _FORMULA.fullmatch(value.replace(" ", "")):
        raise _refuse(
            "InvalidParameterValue",
            f"Invalid parameter value: {value} for: {name} allowed values are: {known.low}-{known.high}",
        )


def _tell(group: DBParameterGroup, each: dict[str, str]) -> None:
    """RDS-EVENT-0037. https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_Events.Messages.html"""
    group.backend.add_event("PARAMETER_UPDATED", group)
    event = group.backend.events[-1]
    event.message = (
        f"Updated parameter {each['ParameterName']} to {each['ParameterValue']} with apply method {each['ApplyMethod']}"
    )


def _publish(backend: RDSBackend, group: DBParameterGroup, wanted: list[dict[str, str]]) -> None:
    """Let the instances of the group know; what is dynamic and immediate takes effect."""
    from . import rds

    _world.pause(_world.settings.create_seconds)
    with _world.lock:
        group.published.update({each["ParameterName"]: each["ParameterValue"] for each in wanted})
        now = {each["ParameterName"]: each["ParameterValue"] for each in wanted if each["ApplyMethod"] == "immediate"}
        for instance in backend.databases.values():
            if now and group_of(instance) is group and instance.running_parameters:
                instance.running_parameters[1].update(now)
                if (server := rds.server_of(instance)) is not None:
                    server.set(now)


# ---- the part ------------------------------------------------------------------------------------------------------


def install(world: World) -> None:
    global _world
    _world = world
    from moto.core.responses import ActionResult
    from moto.rds.exceptions import DBParameterGroupNotFoundError
    from moto.rds.models import DBInstance, DBParameterGroup, Event, RDSBackend
    from moto.rds.responses import RDSResponse

    original = DBParameterGroup.__init__

    def with_published(self: DBParameterGroup, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.published = {}

    def describe_db_parameters(self: RDSResponse) -> ActionResult:
        """All of the family, filtered by source and by name; moto has those only that somebody wrote."""
        name = self.params.get("DBParameterGroupName")
        groups = self.backend.describe_db_parameter_groups({"db_parameter_group_name": name})
        if not groups:
            raise DBParameterGroupNotFoundError(name)
        names = [value for each in self.params.get("Filters", []) for value in each["Values"]]
        source = self.params.get("Source")
        shown = [_shown(groups[0], each) for each in KNOWN if not names or each in names]
        return ActionResult({"Parameters": [each for each in shown if source in (None, each["Source"])]})

    DBParameterGroup.__init__ = with_published
    DBParameterGroup.event_source_type = "db-parameter-group"
    DBInstance.running_parameters = None
    DBInstance.parameters_applying = False
    DBInstance.db_parameter_group_status_list = property(_statuses)
    RDSBackend.modify_db_parameter_group = modify_db_parameter_group
    RDSResponse.describe_db_parameters = describe_db_parameters
    Event.EVENT_MAP["PARAMETER_UPDATED"] = {"Categories": ["configuration change"], "Message": ""}


def _shown(group: DBParameterGroup, name: str) -> dict[str, Any]:
    known, written = KNOWN[name], group.parameters.get(name)
    shown = {
        "ParameterName": name,
        "Description": known.description,
        "Source": "user" if written else "system" if known.default else "engine-default",
        "ApplyType": "static" if known.static else "dynamic",
        "DataType": "integer",
        "AllowedValues": f"{known.low}-{known.high}",
        "IsModifiable": True,
        "ApplyMethod": written["ApplyMethod"] if written else "pending-reboot",
    }
    value = written["ParameterValue"] if written else known.default
    return shown | ({} if value is None else {"ParameterValue": value})


def seed(world: World) -> None:
    for region in world.regions:
        with world.lock:
            _make(world, region, f"default.{FAMILY}", f"Default parameter group for {FAMILY}")
            group = _make(world, region, GROUP, "regami databases")
            value = str(MAX_CONNECTIONS)
            group.update_parameters(
                [{"ParameterName": "max_connections", "ParameterValue": value, "ApplyMethod": "pending-reboot"}]
            )
            group.published["max_connections"] = value
        world.state["regions"].setdefault(region, {})["db_parameter_group"] = GROUP


def _make(world: World, region: str, name: str, description: str) -> DBParameterGroup:
    return world.backend("rds", region).create_db_parameter_group(
        {"db_parameter_group_name": name, "db_parameter_group_family": FAMILY, "description": description}
    )
