# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The queue as a source: what is deleted when, and a queue that does not answer for a while."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest
from botocore.exceptions import EndpointConnectionError

from ansible_collections.sre.runbooks.extensions.eda.plugins.event_source import sqs

ARGUMENTS = {"queue_url": "https://queue.example.com/alarms", "region": "us-west-2"}


class Over(Exception):
    """Ends the source."""


def calls(answers, refuses=False):
    """What the source calls and puts, in order, until `answers` are used up."""
    seen = []

    class Client:
        def receive_message(self, **wanted):
            seen.append(f"receive {wanted['WaitTimeSeconds']}")
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        def delete_message(self, **wanted):
            seen.append(f"delete {wanted['ReceiptHandle']}")

    class Queue:
        async def put(self, event):
            if refuses:
                raise Over
            seen.append(f"put {event['body']}")

    async def pause(seconds):
        seen.append(f"pause {seconds:g}")

    with (
        mock.patch("boto3.client", return_value=Client()),
        mock.patch.object(asyncio, "sleep", pause),
        pytest.raises(Over),
    ):
        asyncio.run(sqs.main(Queue(), ARGUMENTS))
    return seen


def message(number):
    return {"MessageId": str(number), "ReceiptHandle": f"r{number}", "Body": f"b{number}"}


def test_message_is_deleted_once_its_event_is_on_its_way():
    seen = calls([{"Messages": [message(1), message(2)]}, {}, Over()])
    assert seen == ["receive 20", "put b1", "delete r1", "put b2", "delete r2", "receive 20", "receive 20"]


def test_event_that_nobody_takes_is_not_deleted():
    assert calls([{"Messages": [message(1)]}], refuses=True) == ["receive 20"]


def test_queue_that_is_away_is_tried_again_and_said_once(caplog):
    away = EndpointConnectionError(endpoint_url="https://queue.example.com")
    seen = calls([away, away, {"Messages": [message(1)]}, away, Over()])
    assert [each for each in seen if each.startswith("pause")] == ["pause 1", "pause 2", "pause 1"]
    assert "put b1" in seen
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]


def test_no_queue_is_waited_for_without_a_call():
    async def briefly():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(sqs.main(None, {"queue_url": ""}), 0.01)

    with mock.patch("boto3.client") as client:
        asyncio.run(briefly())
    assert not client.called
