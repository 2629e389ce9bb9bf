# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restored RDS instance must be told, or it has defaults where its source had settings. Pure.

By default it has the default parameter group and security group, one zone, no deletion protection and no logins by IAM, and of a
point in time the default subnet group and no tags.
https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_RestoreDBInstanceFromDBSnapshot.html
https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_RestoreDBInstanceToPointInTime.html
"""

from __future__ import annotations

from . import rds

# As DescribeDBInstances calls it: as both calls do.
_CARRIED = {
    "AutoMinorVersionUpgrade": "AutoMinorVersionUpgrade",
    "BackupRetentionPeriod": "BackupRetentionPeriod",
    "CACertificateIdentifier": "CACertificateIdentifier",
    "CopyTagsToSnapshot": "CopyTagsToSnapshot",
    "DBInstanceClass": "DBInstanceClass",
    "DeletionProtection": "DeletionProtection",
    "EnabledCloudwatchLogsExports": "EnableCloudwatchLogsExports",
    "IAMDatabaseAuthenticationEnabled": "EnableIAMDatabaseAuthentication",
    "MultiAZ": "MultiAZ",
    "NetworkType": "NetworkType",
    "PreferredBackupWindow": "PreferredBackupWindow",
    "ProcessorFeatures": "ProcessorFeatures",
}
# What neither call takes, as ModifyDBInstance calls it.
_LATER = {
    "MaxAllocatedStorage": "MaxAllocatedStorage",
    "MonitoringInterval": "MonitoringInterval",
    "MonitoringRoleArn": "MonitoringRoleArn",
    "PerformanceInsightsEnabled": "EnablePerformanceInsights",
    "PerformanceInsightsKMSKeyId": "PerformanceInsightsKMSKeyId",
    "PerformanceInsightsRetentionPeriod": "PerformanceInsightsRetentionPeriod",
    "PreferredMaintenanceWindow": "PreferredMaintenanceWindow",
}
# These are of no use one by one.
_TOGETHER = (
    {"MonitoringInterval", "MonitoringRoleArn"},
    {"PerformanceInsightsEnabled", "PerformanceInsightsKMSKeyId", "PerformanceInsightsRetentionPeriod"},
)
# Below this size a gp3 volume has what it has, and its numbers must not be said.
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Storage.html
_GP3_SAYS_IOPS = 400


def carried(source, resource_id, point):
    """The arguments of either restore call that make the new instance like its source, and never public.

    Args:
        source: DescribeDBInstances entry.
        resource_id: of the instance that it takes the data from.
        point: text of the snapshot or time, which the new instance remembers.
    """
    wanted = {name: source[key] for key, name in _CARRIED.items() if source.get(key) not in (None, "", [])}
    wanted |= _storage(source)
    wanted["PubliclyAccessible"] = False
    if source.get("DedicatedLogVolume"):  # which not every class takes, be it a no
        wanted["DedicatedLogVolume"] = True
    wanted["VpcSecurityGroupIds"] = sorted(each["VpcSecurityGroupId"] for each in source.get("VpcSecurityGroups", []))
    subnets = (source.get("DBSubnetGroup") or {}).get("DBSubnetGroupName")
    options = [each["OptionGroupName"] for each in source.get("OptionGroupMemberships") or []]
    parameters = [each["DBParameterGroupName"] for each in source.get("DBParameterGroups") or []]
    for name, value in (
        ("DBSubnetGroupName", subnets),
        ("DBParameterGroupName", next(iter(parameters), None)),
        ("OptionGroupName", next((each for each in options if not each.startswith("default:")), None)),
    ):
        if value:
            wanted[name] = value
    tags = {each["Key"]: each["Value"] for each in source.get("TagList", [])}
    tags = {key: value for key, value in tags.items() if key not in rds.OURS and not key.startswith("aws:")}
    tags |= {rds.RESTORED_FROM: resource_id, rds.RESTORED_TO: point}
    wanted["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    return wanted


def _storage(source):
    kind = source.get("StorageType")
    if not kind:
        return {}
    names = {"gp2": (), "standard": (), "gp3": ("Iops", "StorageThroughput")}.get(kind, ("Iops",))
    if kind == "gp3" and source.get("AllocatedStorage", 0) < _GP3_SAYS_IOPS:
        names = ()
    return {"StorageType": kind} | {name: source[name] for name in names if source.get(name)}


def left(source, restored):
    """The arguments of ModifyDBInstance for what only that can carry over; empty where nothing is left."""
    differs = {key for key in _LATER if source.get(key) and source.get(key) != restored.get(key)}
    for group in _TOGETHER:
        if differs & group:
            differs |= {key for key in group if source.get(key)}
    return {_LATER[key]: source[key] for key in sorted(differs)}
