"""Which sockets of which processes listen, by /proc: what `ss -ltnup` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path

PROC = Path("/proc")
# States in /proc/net: TCP that listens; UDP that is bound, but connected to nobody.
LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}


def family(roots: Iterable[int]) -> set[int]:
    """These processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, left = set(roots), list(roots)
    while left:
        new = set(children.get(left.pop(), ())) - found
        found |= new
        left += new
    return found


def listening(pids: Iterable[int]) -> Iterator[tuple[str, str]]:
    """Name of the process, and address and port, of each listening socket."""
    owners = {inode: pid for pid in pids for inode in _sockets(pid)}
    for protocol, wanted in LISTENING.items():
        table = PROC / "net" / protocol
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            _, local, _, state, *_, inode = line.split()[:10]
            if state == wanted and inode in owners:
                name = (PROC / str(owners[inode]) / "comm").read_text().strip()
                yield name, f"{protocol} {address(local)}"


def _sockets(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    yield target[8:-1]


def address(text: str) -> str:
    """The address of `0100007F:1F90`: words of four bytes, each with its last byte first."""
    digits, _, port = text.partition(":")
    raw = bytes.fromhex(digits)
    found = ip_address(b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4)))
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return f"{mapped or found} port {int(port, 16)}"
