"""From which address a request comes: the peer's, or what a trusted proxy says. Scope in, address out.

`X-Forwarded-For` is anybody's to write, so it counts only where the peer is a proxy named in the settings; then it is
read from its end, and the first address that is no such proxy is the caller's.
"""

import functools
import ipaddress
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_FORWARDING = (b"x-forwarded-for", b"forwarded", b"x-real-ip")


@functools.lru_cache(4096)
def _parse(text: str) -> _Address | None:
    text = text.strip()
    if text.startswith("["):  # [2001:db8::1]:443
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def _in(address: _Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _peer(scope: Any) -> _Address | None:
    client = scope.get("client")
    return _parse(client[0]) if client else None


def address(scope: Any, *, trusted: tuple[Network, ...]) -> _Address | None:
    """The caller's address; None where there is none, as on a Unix socket."""
    found = _peer(scope)
    if not trusted or found is None or not _in(found, trusted):
        return found
    said = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    for text in reversed(said.split(",")):
        further = _parse(text)
        if further is None:  # nobody said it, or not an address: the last one that is known
            return found
        found = further
        if not _in(found, trusted):
            return found
    return found


def subject(scope: Any, *, trusted: tuple[Network, ...]) -> str:
    """What an address is counted as: itself, or of IPv6 the /64, which is what one customer gets."""
    found = address(scope, trusted=trusted)
    return "address:unknown" if found is None else _subject(found)


@functools.lru_cache(4096)
def _subject(found: _Address) -> str:
    if isinstance(found, ipaddress.IPv6Address):
        return f"address:{ipaddress.ip_network((int(found) >> 64 << 64, 64))}"
    return f"address:{found}"


def is_within(scope: Any, networks: tuple[Network, ...], *, trusted: tuple[Network, ...]) -> bool:
    """Whether the caller's address is in one of the networks.

    A request that was forwarded by a proxy nobody named is in none: its peer says nothing about its caller.
    """
    peer = _peer(scope)
    if peer is None:
        return False
    if not _in(peer, trusted) and any(name in _FORWARDING for name, _ in scope["headers"]):
        return False
    found = address(scope, trusted=trusted)
    return found is not None and _in(found, networks)
