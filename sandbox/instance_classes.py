# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The classes that an RDS instance for PostgreSQL may have here, and what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import World

# A part of the list for PostgreSQL 16; the EC2 type of the same name has the memory.
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Concepts.DBInstanceClass.Support.html
_SIZES = {
    "t3": ("micro", "small", "medium", "large", "xlarge", "2xlarge"),
    "t4g": ("micro", "small", "medium", "large", "xlarge", "2xlarge"),
    "m5": ("large", "xlarge", "2xlarge", "4xlarge"),
    "m6g": ("large", "xlarge", "2xlarge", "4xlarge"),
    "r5": ("large", "xlarge", "2xlarge", "4xlarge"),
    "r6g": ("large", "xlarge", "2xlarge", "4xlarge"),
}
OFFERED = tuple(f"db.{family}.{size}" for family, sizes in _SIZES.items() for size in sizes)


def memory_of(instance_class: str) -> int:
    """Bytes of memory."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    return INSTANCE_TYPES[instance_class.removeprefix("db.")]["MemoryInfo"]["SizeInMiB"] << 20


def install(world: World) -> None:
    from moto.core.responses import ActionResult
    from moto.rds.responses import RDSResponse

    original = RDSResponse.describe_orderable_db_instance_options

    def describe_orderable_db_instance_options(self: Any) -> Any:
        """moto knows those of Aurora only."""
        if self.params.get("Engine") != "postgres":
            return original(self)
        asked = self.params.get("DBInstanceClass")
        return ActionResult(
            {
                "OrderableDBInstanceOptions": [
                    {
                        "Engine": "postgres",
                        "EngineVersion": self.params.get("EngineVersion") or "16.4",
                        "DBInstanceClass": name,
                        "LicenseModel": "postgresql-license",
                        "StorageType": "gp3",
                        "Vpc": True,
                    }
                    for name in OFFERED
                    if asked in (None, name)
                ]
            }
        )

    RDSResponse.describe_orderable_db_instance_options = describe_orderable_db_instance_options
