# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let plain pytest import ``ansible_collections.sre.runbooks`` from this clone, as ansible-playbook does.

ansible-test brings a loader of its own, so this file stays out of the collection artifact that it runs on.
"""

from __future__ import annotations

from pathlib import Path

from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
from hypothesis import settings

COLLECTIONS = Path(__file__).parents[1] / ".ansible" / "collections"

_AnsibleCollectionFinder(paths=[str(COLLECTIONS)])._install()

# The same examples each time, and no deadline: on a busy machine one may take long.
settings.load_profile("ci")
