# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What comes of packets that no rule of a security group lets in: nothing. Whoever connects hears nothing and gives up.

A filter on the listening socket drops them, in the kernel; connections that are there already have none, and live on, as
tracked connections do. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html

The socket belongs to another process: https://man7.org/linux/man-pages/man2/pidfd_getfd.2.html
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

_SYS_PIDFD_GETFD = 438
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
# One instruction of the classic packet filter, BPF_RET with 0 bytes.
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
_libc = ctypes.CDLL(None, use_errno=True)


def drop(pid: int, address: str, port: int, on: bool) -> None:
    """Drop what comes to the socket on which process `pid` listens at address:port, or let it in again.

    Raises OSError where this machine does not allow it, and LookupError where the process does not listen there.
    """
    with _listener(pid, address, port) as listener:
        if on:
            program = ctypes.create_string_buffer(_DROP_ALL)
            # struct sock_fprog: the number of instructions, and where they are.
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
        else:
            try:
                listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            except FileNotFoundError:
                pass  # there is none


def _listener(pid: int, address: str, port: int) -> socket.socket:
    process = os.pidfd_open(pid)
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            if not os.readlink(f"/proc/{pid}/fd/{entry}").startswith("socket:"):
                continue
            copy = _libc.syscall(_SYS_PIDFD_GETFD, process, int(entry), 0)
            if copy < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            found = socket.socket(fileno=copy)
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and found.getsockname()[:2] == (address, port):
                return found
            found.close()
    finally:
        os.close(process)
    raise LookupError(f"process {pid} does not listen at {address}:{port}")
