# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX gets of this repository, made from the argument specs beside the playbooks (`make awx`)."""
