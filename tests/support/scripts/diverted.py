"""A script for mitmproxy under test: every connection was diverted here from the address in `TEST_DIVERTED`.

A transparent listener asks the kernel where its client wanted to go; this answers in its place, as the tests change
no machine's network.
"""

import os
import socket

from mitmproxy import platform


def _original_address(csock: socket.socket) -> tuple[str, int]:
    host, _, port = os.environ["TEST_DIVERTED"].rpartition(":")
    return host, int(port)


platform.original_addr = _original_address
