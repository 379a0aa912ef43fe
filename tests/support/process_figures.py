"""Figures of processes from `/proc`: memory, open files and listening addresses."""

import socket
from pathlib import Path


def memory_mb(pid: int, kind: str = "VmRSS") -> float:
    """Return the resident memory of a process; its peak for `VmHWM`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def peak_mb(pid: int) -> float:
    """Return the highest resident memory of a process so far."""
    return memory_mb(pid, "VmHWM")


def open_files(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def listening_addresses(port: int) -> set[str]:
    """Return the IPv4 addresses on which this port is open; `::` stands for all of IPv6."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            if state == "0A" and int(number, 16) == port:
                packed = bytes.fromhex(address)
                found.add(socket.inet_ntoa(packed[::-1]) if len(packed) == 4 else "::")
    return found
