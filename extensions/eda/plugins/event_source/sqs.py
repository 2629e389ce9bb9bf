# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Messages of a queue as events; by boto3, which the collection needs anyway, each call in a thread of its own."""

from __future__ import annotations

DOCUMENTATION = r"""
short_description: Receive the messages of an SQS queue
description:
  - Waits for messages and makes one event of each, its text below C(body). A message is deleted only once its event is on its way,
    so a crash in between has it delivered again, and a message that cannot be read goes to the dead-letter queue of the queue.
  - A queue that cannot be reached, is missing or denies access does not end the source. It says so once, tries again, more and more
    seldom up to every minute, and says when it goes on.
options:
  queue_url:
    description: URL of the queue. An empty one is no queue, and the source waits for ever.
    type: str
    required: true
  region:
    description: Its region. Default is that of the environment or the profile.
    type: str
  endpoint_url:
    description: URL of the API, where it is not that of AWS.
    type: str
  wait_seconds:
    description: How long one call waits for messages, 20 at most.
    type: int
    default: 20
"""

EXAMPLES = r"""
- sre.runbooks.sqs:
    queue_url: https://sqs.us-west-2.amazonaws.com/123456789012/alarms
    region: us-west-2
"""

import asyncio
import logging

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

logger = logging.getLogger(__name__)

AT_ONCE = 10  # the most that one call gives
LONGEST_PAUSE = 60.0  # seconds


async def main(queue, args):
    """Put an event on `queue` for each message, until the source is cancelled."""
    if not args["queue_url"]:
        await asyncio.Event().wait()
    wait = int(args.get("wait_seconds", 20))
    client = boto3.client(
        "sqs",
        region_name=args.get("region") or None,
        endpoint_url=args.get("endpoint_url") or None,
        config=Config(read_timeout=wait + 10, retries={"total_max_attempts": 1}),
    )
    pause = 0.0
    while True:
        try:
            answer = await asyncio.to_thread(
                client.receive_message,
                QueueUrl=args["queue_url"],
                WaitTimeSeconds=wait,
                MaxNumberOfMessages=AT_ONCE,
            )
            for message in answer.get("Messages", []):
                await queue.put({"body": message["Body"], "meta": {"message": message["MessageId"]}})
                await asyncio.to_thread(
                    client.delete_message, QueueUrl=args["queue_url"], ReceiptHandle=message["ReceiptHandle"]
                )
        except (BotoCoreError, ClientError) as error:
            if not pause:
                logger.error("%s cannot be read, trying again: %s", args["queue_url"], error)
            pause = min(LONGEST_PAUSE, 2 * pause or 1.0)
            await asyncio.sleep(pause)
        else:
            if pause:
                logger.warning("%s can be read again", args["queue_url"])
            pause = 0.0
