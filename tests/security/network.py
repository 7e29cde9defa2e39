"""The network, cut."""

from __future__ import annotations

import socket

import pytest

asked_for: list[str] = []


def cut_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every way to another machine raise, and note who tried."""
    asked_for.clear()
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, _no_network)
    for name in ("getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, _no_network)


def _no_network(*arguments: object, **_: object) -> None:
    asked_for.append(repr(arguments[-1]))
    raise OSError("the network is cut")
