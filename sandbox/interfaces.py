# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Network interfaces are found by their public address too, which moto does not know.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeNetworkInterfaces.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import World


def install(world: World) -> None:
    from moto.ec2.models.elastic_network_interfaces import NetworkInterface

    original = NetworkInterface.get_filter_value

    def get_filter_value(interface: Any, name: str, method: str | None = None) -> Any:
        return interface.public_ip if name == "association.public-ip" else original(interface, name, method)

    NetworkInterface.get_filter_value = get_filter_value
