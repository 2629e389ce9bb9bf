# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations


class ModuleDocFragment:
    """An image that a person has named as good."""

    DOCUMENTATION = r"""
options:
  container:
    description: Name of the container. Default is the only one that there is.
    type: str
  accept_unknown_image:
    description: Deploy although its registry is not Amazon ECR, or may not be asked, so that nobody knows whether it is there.
    type: bool
    default: false
"""
