# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates of HTTPS listeners, as ACM has them: the load balancer shows one whether it is still valid or not.

https://docs.aws.amazon.com/elasticloadbalancing/latest/application/https-listener-certificates.html
"""

from __future__ import annotations

import ssl
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import World

_shown: dict[tuple[str, int], tuple[bytes, ssl.SSLContext]] = {}  # (balancer, port) -> certificate and context


def context(world: World, region: str, balancer: str, listener: Any) -> ssl.SSLContext | None:
    """What a listener of moto's speaks TLS with; None where it speaks none, or ACM does not have its certificate.

    Of a listener it is the same as long as that lives: another certificate is shown from the next handshake on.
    """
    known = world.backend("acm", region)._certificates if listener.protocol in ("HTTPS", "TLS") else {}
    certificate = known.get(listener.certificate)
    if certificate is None:
        return None
    place = balancer, int(listener.port)
    shown, made = _shown.get(place) or (b"", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    if shown != certificate.cert:
        _load(made, certificate)
        _shown[place] = certificate.cert, made
    return made


def _load(made: ssl.SSLContext, certificate: Any) -> None:
    """OpenSSL takes a key from a file only."""
    with tempfile.NamedTemporaryFile() as file:  # 0600
        file.write(b"\n".join(filter(None, (certificate.key, certificate.cert, certificate.chain))))
        file.flush()
        made.load_cert_chain(file.name)


def forget() -> None:
    _shown.clear()
