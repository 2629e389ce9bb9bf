# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls to the Kubernetes API: which cluster, as whom, what may be repeated, and errors as sentences.

The Kubernetes client finds the cluster and signs in (kubeconfig, in-cluster account, plugins such as `aws eks get-token`).
Objects stay the JSON that the API sends: its typed models would drop fields that a newer API knows, and cost most of the
time of a call. As in aws.py, reads are repeated here and a mutation never is before a new look.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import time
from urllib.parse import urlencode

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_MAP

from . import read_only
from .aws import CONNECT_TIMEOUT, READ_TIMEOUT
from .errors import LostAnswer, NotLetIn, Overtaken, Refusal, Stop, Throttled, Unreachable
from .masking import snippet

try:
    import urllib3
    import yaml
    from kubernetes import client, config

    HAS_KUBERNETES = True
except ImportError:
    HAS_KUBERNETES = False

READ_TRIES = 5
# The longest pause that a throttling server may ask for, in seconds.
LONGEST_RETRY_AFTER = 5
JSON_PATCH = "application/json-patch+json"


class NotFound(Stop):
    """There is no such object, or no such kind of object, in this cluster."""


class Denied(NotLetIn):
    """The credentials are known and may not do that."""


class Invalid(Stop):
    """The API understood the change and does not take it; a JSON patch whose `test` fails ends so, too."""


class Cluster:
    """One cluster, as one user.

    Args:
        params: the options AUTH_ARGUMENTS of a module.

    Raises:
        Stop: no cluster is configured, or the credentials cannot be had.
    """

    def __init__(self, params):
        configuration = _configuration(params)
        self.host, self._configuration = configuration.host, configuration
        # Also what the OpenShift client is made of.
        self.api_client = client.ApiClient(configuration)
        self._impersonation = [("Impersonate-User", params.get("impersonate_user"))] + [
            ("Impersonate-Group", group) for group in params.get("impersonate_groups") or []
        ]

    def read(self, path, **query):
        """GET: JSON as a dict, or the text of a log; repeated through throttling, server errors and lost connections.

        Args:
            path: from the root, for example /apis/apps/v1/namespaces/shop/deployments/web.

        Raises:
            NotFound, Denied, Unreachable, Throttled, Stop.
        """
        for remaining in range(READ_TRIES - 1, -1, -1):
            try:
                answer = self._send("GET", path, query=query)
            except _Silent as error:
                raise Unreachable(str(error)) from error
            except _Broken as error:
                if not remaining:
                    raise Unreachable(str(error)) from error
                time.sleep(0.2)
                continue
            if answer.status == 429 or answer.status >= 500:
                if remaining:
                    time.sleep(_pause(answer, READ_TRIES - remaining))
                    continue
                raise (Throttled if answer.status == 429 else Unreachable)(self._explain("GET", path, answer))
            return self._result("GET", path, answer)
        return None

    def change(self, method, path, body=None, content_type="application/json", **query):
        """A mutation, sent once; sent again only after an answer that says that it was not looked at (429).

        https://kubernetes.io/docs/concepts/cluster-administration/flow-control/

        Raises:
            LostAnswer: a time-out, a reset or a server error; look at the state before repeating.
            Overtaken: the object has changed since it was read.
            Invalid, NotFound, Denied, Throttled, Stop: not applied.
        """
        # https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
        if "dryRun" not in query:
            read_only.refuse(words(method, path))
        for remaining in range(READ_TRIES - 1, -1, -1):
            try:
                answer = self._send(method, path, body, content_type, query)
            except (_Silent, _Broken) as error:
                raise LostAnswer(str(error)) from error
            if answer.status == 429:
                if not remaining:
                    raise Throttled(self._explain(method, path, answer))
                time.sleep(_pause(answer, READ_TRIES - remaining))
                continue
            if answer.status >= 500:
                raise LostAnswer(self._explain(method, path, answer))
            return self._result(method, path, answer)
        return None

    def _send(self, method, path, body=None, content_type=None, query=None):
        headers = urllib3.HTTPHeaderDict({"Accept": "application/json, */*", "User-Agent": "sre.runbooks"})
        for name, value in self._impersonation:
            if value:
                headers.add(name, value)
        # Asked each time: a token of a plugin is renewed when it has expired.
        for setting in self._configuration.auth_settings().values():
            headers[setting["key"]] = setting["value"]
        if self._configuration.username:
            headers["Authorization"] = self._configuration.get_basic_auth_token()
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            return self.api_client.rest_client.pool_manager.request(
                method,
                self.host + path + (f"?{urlencode(query)}" if query else ""),
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
                retries=False,
            )
        except urllib3.exceptions.SSLError as error:
            raise Stop(
                f"the certificate of {self.host} cannot be trusted ({snippet(str(error))}): "
                f"check ca_cert, or the cluster in the kubeconfig"
            ) from error
        except urllib3.exceptions.TimeoutError as error:
            raise _Silent(self._no_answer(method, path, error)) from error
        except urllib3.exceptions.HTTPError as error:
            raise _Broken(self._no_answer(method, path, error)) from error

    def _no_answer(self, method, path, error):
        return f"the cluster {self.host} does not answer ({words(method, path)}: {type(error).__name__})"

    def _result(self, method, path, answer):
        if answer.status < 300:
            text = answer.data.decode(errors="replace")
            return json.loads(text) if answer.headers.get("Content-Type", "").startswith("application/json") else text
        raised = {401: NotLetIn, 403: Denied, 404: NotFound, 409: Overtaken, 422: Invalid}.get(answer.status, Stop)
        raise raised(self._explain(method, path, answer))

    def _explain(self, method, path, answer):
        """One line for a person: what failed, where, and what to do next."""
        message, what = _message(answer), words(method, path)
        if answer.status == 401:
            return (
                f"the cluster {self.host} does not accept these credentials ({what}: 401): the token may have expired: "
                f"sign in again (for example aws sso login, or oc login) and repeat the command"
            )
        if answer.status == 403 and "system:anonymous" in message:
            return (
                f"the cluster {self.host} takes this run for system:anonymous ({what}): no credentials were sent: "
                f"check kubeconfig, context or api_key"
            )
        if answer.status == 403 and " cannot " in message:
            return f"missing permission to {what}: {message}: add it to a Role of that user, or use another context"
        if answer.status == 409:
            return (
                f"{what}: {'it was made' if method == 'POST' else 'the object was changed'} by somebody else meanwhile"
            )
        return f"{what}: {self.host} answered {answer.status}: {message}"


class _Silent(Exception):
    """No answer within the time-out: a second try would only double it."""


class _Broken(Exception):
    """The connection was refused, reset, or could not be made."""


def openshift_path(cluster, kind, name, namespace):
    """The path of an object of one of OpenShift's own kinds, as OpenShift's client finds it.

    Raises:
        Refusal: this cluster has no such kind.
        Stop: the client is not installed, or the cluster does not answer.
    """
    try:
        from openshift.dynamic import DynamicClient, exceptions
    except ImportError as error:
        raise Stop(missing_required_lib("openshift")) from error
    cluster.read("/version")  # the client below waits for an answer without end
    try:
        with tempfile.TemporaryDirectory() as folder:  # its own cache would be a file that others can foresee
            found = DynamicClient(cluster.api_client, cache_file=os.path.join(folder, "cache"))
            return found.resources.get(api_version="apps.openshift.io/v1", kind=kind).path(
                name=name, namespace=namespace
            )
    except exceptions.ResourceNotFoundError as error:
        raise Refusal(
            f"{cluster.host} knows no {kind}: that kind is OpenShift's (apps.openshift.io/v1): check kind and context"
        ) from error
    except (exceptions.DynamicApiError, urllib3.exceptions.HTTPError) as error:
        raise Stop(f"{cluster.host} does not say whether it is OpenShift: {snippet(str(error))}") from error


def objects(namespace, resource, name=None, api="/apis/apps/v1"):
    """The path of an object, or of all of its kind, in a namespace."""
    return f"{api}/namespaces/{namespace}/{resource}" + (f"/{name}" if name else "")


def words(method, path):
    """A request as RBAC spells it: patch deployments.apps web in namespace shop.

    https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb
    """
    root, _found, rest = path.partition("/namespaces/")
    group = root.split("/")[2] if root.startswith("/apis/") and root.count("/") > 1 else ""
    namespace, _found, named = rest.partition("/")
    if not named:
        return f"get namespace {namespace}" if namespace else f"{method.lower()} {path}"
    parts = named.split("/")
    verb = {"GET": "get" if len(parts) > 1 else "list", "POST": "create"}.get(method, method.lower())
    kind = "/".join(parts[:1] + parts[2:]) + (f".{group}" if group else "")
    return f"{verb} {kind}{f' {parts[1]}' if len(parts) > 1 else ''} in namespace {namespace}"


def _message(answer):
    """What the Status object of an error says, else the start of the body."""
    text = answer.data.decode(errors="replace")
    with contextlib.suppress(ValueError, AttributeError):
        text = json.loads(text).get("message") or text
    return snippet(text, 300) or "no message"


def _pause(answer, tries):
    """Seconds until the next try: what the server asks for, else a little more each time."""
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked) if asked.isdigit() else 0.2 * 2**tries, LONGEST_RETRY_AFTER)


def _configuration(params):
    """The client's configuration, found in the order of kubernetes.core: options, in-cluster account, kubeconfig."""
    given = {name: params[option] for name, option in AUTH_ARG_MAP.items() if params.get(option) is not None}
    found = client.Configuration()
    with _complaints() as complaints:
        try:
            if not _is_complete(given):
                _load(found, given)
        except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError) as error:
            raise Stop(
                f"no cluster to talk to: {snippet(str(error))}: set kubeconfig and context for this host in the inventory"
            ) from error
    signed_in = found.api_key or found.cert_file or found.username or _is_complete(dict(given, host=found.host))
    if complaints and not signed_in:
        raise Stop(
            f"the credential plugin of the kubeconfig failed ({snippet(complaints[-1])}): run it by hand, sign in "
            f"again where it needs that, and repeat the command"
        )
    for name, value in given.items():
        if name == "api_key":
            # Or a refresh of the kubeconfig's user would take its place.
            found.api_key, found.refresh_api_key_hook = {"authorization": f"Bearer {value}"}, None
        elif name == "proxy_headers":
            found.proxy_headers = urllib3.util.make_headers(**{key: each for key, each in value.items() if each})
        elif name not in ("kubeconfig", "context", "persist_config"):
            setattr(found, name, value)
    found.host = found.host.rstrip("/")
    if not found.verify_ssl:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return found


def _is_complete(given):
    """Do the options alone say where the cluster is and who asks?"""
    return bool(
        given.get("host")
        and (
            given.get("api_key")
            or (given.get("username") and given.get("password"))
            or (given.get("cert_file") and given.get("key_file"))
        )
    )


def _load(found, given):
    kubeconfig = given.get("kubeconfig")
    options = {
        "context": given.get("context"),
        "client_configuration": found,
        "persist_config": given.get("persist_config", False),
    }
    if isinstance(kubeconfig, dict):
        config.load_kube_config_from_dict(kubeconfig, **options)
        return
    if not kubeconfig and not given.get("context"):
        try:
            config.load_incluster_config(client_configuration=found)
            return
        except config.ConfigException:
            pass
    # The client reads KUBECONFIG once, when it is imported; a task may set it later.
    config.load_kube_config(config_file=kubeconfig or os.environ.get("KUBECONFIG"), **options)


@contextlib.contextmanager
def _complaints():
    """What the client logs meanwhile: a credential plugin that fails is only logged, and the user is then anonymous."""

    class Listener(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    lines, listener = [], Listener(logging.ERROR)
    logging.getLogger().addHandler(listener)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(listener)
