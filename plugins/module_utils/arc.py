# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Routing controls of the Application Recovery Controller: the data plane that works while a region is gone.

A cluster has five regional endpoints, any of which takes a change. They are tried in turn, the last one that answered
first. https://docs.aws.amazon.com/r53recovery/latest/dg/route53-arc-best-practices.html
"""

from __future__ import annotations

from . import waiting
from .aws import THROTTLED, code_of, explain, is_unreachable
from .errors import GivenUp, Refusal, Unreachable

SERVICE = "route53-recovery-cluster"
# Seconds for one endpoint: with four of five gone, the move must still be a matter of seconds.
TIMEOUT = 2
# The endpoint is up but cannot serve: another one can.
TRY_ANOTHER = ("EndpointTemporarilyUnavailableException", "InternalServerException", *THROTTLED)


class RoutingControls:
    """The routing controls that one cluster holds.

    Args:
        aws: the Aws whose credentials are used.
        endpoints: [{region, endpoint_url}], as DescribeCluster lists them; kept in the inventory, since DescribeCluster
            is a control plane call.
    """

    def __init__(self, aws, endpoints):
        self._aws, self._endpoints = aws, list(endpoints)

    def states(self, arns):
        """{arn: "On" or "Off"}."""
        return {
            arn: self._call("get_routing_control_state", RoutingControlArn=arn)["RoutingControlState"] for arn in arns
        }

    def set(self, states):
        """Change all of `states` at once. A state is absolute, so that a lost answer is asked again at the next endpoint."""
        try:
            self._call(
                "update_routing_control_states",
                UpdateRoutingControlStateEntries=[
                    {"RoutingControlArn": arn, "RoutingControlState": state} for arn, state in states.items()
                ],
            )
        except Exception as error:
            if code_of(error) == "ConflictException":
                raise Refusal(
                    f"a safety rule of the routing controls forbids the change: {error.response['Error']['Message']}: "
                    f"look at the rules of the control panel; nothing was changed"
                ) from error
            raise

    def _call(self, operation, **arguments):
        silent = []
        for endpoint in list(self._endpoints):
            try:
                client = self._aws.client(SERVICE, endpoint["region"], endpoint["endpoint_url"], timeout=TIMEOUT)
                answer = self._aws.patience.ask(
                    endpoint["region"], lambda client=client: getattr(client, operation)(**arguments), is_unreachable
                )
            except GivenUp as error:
                silent.append(str(error))
                continue
            except Exception as error:
                error.sre_call = (SERVICE, operation, endpoint["region"])
                if not is_unreachable(error) and code_of(error) not in TRY_ANOTHER:
                    if code_of(error) == "ResourceNotFoundException":
                        raise Refusal(
                            f"the cluster has no such routing control: {error.response['Error']['Message']}: "
                            f"check routing_controls.turn_on and routing_controls.turn_off"
                        ) from error
                    raise
                silent.append(explain(error))
                waiting.say(f"{silent[-1]}; trying the next endpoint")
                # Last in the queue, so that the next call does not wait for it again.
                self._endpoints.remove(endpoint)
                self._endpoints.append(endpoint)
                continue
            return answer
        raise Unreachable(f"none of the {len(silent)} endpoints of the routing control cluster answered: {silent[-1]}")


def plan_controls(states, wanted):
    """Pure: {arn: state} to set, or {} where both are so already.

    Args:
        states: {arn: "On" or "Off"} as they are.
        wanted: {turn_on: arn, turn_off: arn}.
    """
    if wanted["turn_on"] == wanted["turn_off"]:
        raise Refusal(f"routing_controls.turn_on and turn_off are the same control ({wanted['turn_on']}): name two")
    then = {wanted["turn_on"]: "On", wanted["turn_off"]: "Off"}
    return {} if states == then else then
