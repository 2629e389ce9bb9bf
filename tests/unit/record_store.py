# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of S3 as a bucket of records asks for."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from botocore import exceptions as boto_errors

from ansible_collections.sre.runbooks.plugins.module_utils.record_bucket import Bucket


def refused(code: str, status: int) -> boto_errors.ClientError:
    answer = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto_errors.ClientError(answer, "PutObject")


class Store:
    """The objects of a bucket.

    Attributes:
        gets: keys that were read.
        is_down: it answers nothing.
        answers: for the next writes of what must be the first, one each: `lost` is applied and not answered, `unheard` neither, any other
            text is the code of an error.
        meanwhile: called once, before the next such write.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.gets: list[str] = []
        self.answers: list[str] = []
        self.is_down = False
        self.meanwhile: Callable[[], Any] = lambda: None

    def put_object(self, Bucket: str, Key: str, Body: bytes, IfNoneMatch: str | None = None) -> None:
        self._ask()
        if IfNoneMatch:
            assert IfNoneMatch == "*"
            happens, self.meanwhile = self.meanwhile, lambda: None
            happens()
            answer = self.answers.pop(0) if self.answers else ""
            if answer == "unheard":
                raise boto_errors.ReadTimeoutError(endpoint_url="s3")
            if answer and answer != "lost":
                raise refused(answer, 409)
            if Key in self.objects:
                raise refused("PreconditionFailed", 412)
            self.objects[Key] = Body
            if answer:
                raise boto_errors.ReadTimeoutError(endpoint_url="s3")
        self.objects[Key] = Body

    def get_object(self, Bucket: str, Key: str) -> dict:
        self._ask()
        self.gets.append(Key)
        return {"Body": io.BytesIO(self.objects[Key])}

    def get_paginator(self, name: str) -> Any:
        return SimpleNamespace(paginate=self.paginate)

    def paginate(self, Bucket: str, Prefix: str, Delimiter: str | None = None) -> list[dict]:
        self._ask()
        keys = sorted(key for key in self.objects if key.startswith(Prefix))
        if Delimiter:
            tops = {Prefix + key.removeprefix(Prefix).partition("/")[0] + "/" for key in keys}
            return [{"CommonPrefixes": [{"Prefix": top} for top in sorted(tops)]}]
        # Two pages, as S3 pleases.
        found = [{"Key": key, "LastModified": datetime.now(UTC)} for key in keys]
        return [{"Contents": found[:2]}, {"Contents": found[2:]}]

    def bucket(self) -> Bucket:
        made = Bucket.__new__(Bucket)
        made._client, made.name, made.region = self, "records", "us-west-2"
        return made

    def _ask(self) -> None:
        if self.is_down:
            raise boto_errors.EndpointConnectionError(endpoint_url="s3")
