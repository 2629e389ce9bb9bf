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
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator

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
    for each in _sockets(pid):
        with each:
            if _listens(each) and each.getsockname()[:2] == (address, port):
                _attach(each, [_DROP]) if on else _detach(each)
                return
    raise LookupError(f"process {pid} does not listen at {address}:{port}")


def cut(pid: int, address: str, incoming: bool, outgoing: bool, but: str) -> None:
    """Drop what reaches process `pid`, in the connections it has too, and let in again what is not to be dropped.

    Args:
        address: on which it listens; incoming: connections to that; outgoing: all others.
        but: what comes from this address is never dropped.

    Raises OSError where this machine does not allow it, or the process is gone.
    """
    for each in _sockets(pid):
        with each:
            if each.family != socket.AF_INET or each.type != socket.SOCK_STREAM:
                continue
            if incoming if each.getsockname()[0] == address else outgoing:
                let_in(each, [ipaddress.IPv4Network(but)])
            else:
                _detach(each)


def let_in(listener: socket.socket, sources: Iterable[ipaddress.IPv4Network]) -> None:
    """Drop all that comes to a socket from elsewhere than `sources`."""
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


def _detach(target: socket.socket) -> None:
    try:
        target.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except FileNotFoundError:
        pass  # there is none


def _listens(each: socket.socket) -> bool:
    return bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _sockets(pid: int) -> Iterator[socket.socket]:
    """Copies of those that the process has open, for the caller to close."""
    process = os.pidfd_open(pid)
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            try:
                if not os.readlink(f"/proc/{pid}/fd/{entry}").startswith("socket:"):
                    continue
            except FileNotFoundError:
                continue  # closed meanwhile
            copy = _libc.syscall(_SYS_PIDFD_GETFD, process, int(entry), 0)
            if copy < 0 and ctypes.get_errno() != errno.EBADF:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            if copy >= 0:
                yield socket.socket(fileno=copy)
    finally:
        os.close(process)
