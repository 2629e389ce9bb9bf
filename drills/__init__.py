# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drills: something breaks that nobody has told, an engineer (or `AUTO=1`) recovers, and it is measured how that went.

scenarios/  what is practised, a file each; schedule.yml says when
scenario    reading them, and choosing
steady      what is well, asserted before and waited for after
exercise    one drill in a sandbox
turns       what the responder did, from the records of his runs and the calls that AWS got
score       what it is worth
report      the same as Markdown and as a page; history: all drills with their trend

make drill SCENARIO=list
"""
