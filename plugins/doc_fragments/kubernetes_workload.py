# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

# How to reach a cluster, as suboptions; `kubernetes_options` is the same in code.
CLUSTER = r"""
      kubeconfig:
        description:
          - Path of a kubeconfig, or its content as a dictionary. Default is the one of the client.
          - This and the next four can also be set by the environment variables of the modules of kubernetes.core.
        type: raw
      context:
        description: Name of a context of the kubeconfig. Default is its current one.
        type: str
      host:
        description: URL of the API.
        type: str
      api_key:
        description: A token.
        type: str
      ca_cert:
        description: Path of the certificate of the authority that signed the API's.
        type: path
        aliases: [ssl_ca_cert]
"""

WORKLOAD = (
    r"""
    suboptions:
      name:
        description: Name of the workload.
        type: str
        required: true
      namespace:
        description: Its namespace.
        type: str
        required: true
      kind:
        description: Its kind.
        type: str
        choices: [Deployment, StatefulSet, DaemonSet, DeploymentConfig]
        default: Deployment
"""
    + CLUSTER
)


class ModuleDocFragment:
    """The workload of a service; `kubernetes_reader.WORKLOAD_ARGUMENT` is the same in code."""

    DOCUMENTATION = r"""
options:
  kubernetes:
    description: The workload that runs the service in Kubernetes, and how to reach its cluster.
    type: dict
"""
    DOCUMENTATION += WORKLOAD

    # For verbs that do nothing without it.
    REQUIRED = r"""
options:
  kubernetes:
    description: The workload that runs the service in Kubernetes, and how to reach its cluster.
    type: dict
    required: true
"""
    REQUIRED += WORKLOAD
