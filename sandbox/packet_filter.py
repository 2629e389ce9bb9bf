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
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable

_SYS_PIDFD_GETFD = 438
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Of the classic packet filter. https://docs.kernel.org/networking/filter.html"""
    return struct.pack("HBBI", code, if_true, if_false, operand)


_LOAD, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_DROP, _KEEP = _instruction(_RETURN, 0), _instruction(_RETURN, 0xFFFFFFFF)
# Where the sender's address is in the header of IPv4, counted from where the network layer begins (SKF_NET_OFF).
_SENDER = _instruction(_LOAD, (-0x100000 + 12) & 0xFFFFFFFF)
_libc = ctypes.CDLL(None, use_errno=True)


def drop(pid: int, address: str, port: int, on: bool) -> None:
    """Drop what comes to the socket on which process `pid` listens at address:port, or let it in again.

    Raises OSError where this machine does not allow it, and LookupError where the process does not listen there.
    """
    with _listener(pid, address, port) as listener:
        if on:
            _attach(listener, [_DROP])
        else:
            try:
                listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            except FileNotFoundError:
                pass  # there is none


def let_in(listener: socket.socket, sources: Iterable[ipaddress.IPv4Network]) -> None:
    """Drop all that comes to a listening socket of this process from elsewhere than `sources`."""
    program = []
    for source in sources:
        network, mask = int(source.network_address), int(source.netmask)
        program += [_SENDER, _instruction(_AND, mask), _instruction(_JUMP_EQUAL, network, 0, 1), _KEEP]
    _attach(listener, [*program, _DROP])


def _attach(listener: socket.socket, instructions: list[bytes]) -> None:
    program = ctypes.create_string_buffer(b"".join(instructions))
    # struct sock_fprog: the number of instructions, and where they are.
    given = struct.pack("HP", len(instructions), ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, given)


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
