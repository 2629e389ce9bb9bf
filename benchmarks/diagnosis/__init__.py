# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often the cause of an incident is named: the twelve of the sandbox, each on several days, with noise around.

incidents   one that is played, and what cause_assess says of it
table       who was taken for whom
"""
