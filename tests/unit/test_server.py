"""The server's address, as it is printed and logged."""

from __future__ import annotations

import socket

from notifier.server import address, bind
from notifier.settings import Settings
from tests.installed import needs


@needs(socket.has_ipv6, "this machine has no IPv6")
def test_case_e9_an_ipv6_address_is_printed_as_a_url() -> None:
    with bind("::1", 0) as listening:
        port = listening.getsockname()[1]
        assert address(Settings(), listening) == f"ws://[::1]:{port}/"


def test_an_ipv4_address_and_a_root_path_are_part_of_the_url() -> None:
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert address(Settings(root_path="/live"), listening) == f"ws://127.0.0.1:{port}/live/"
