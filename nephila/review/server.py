"""Serving a project: a socket on this machine, the address with its token, the browser, an end at Ctrl-C."""

from __future__ import annotations

import ipaddress
import socket
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nephila.errors import InputError
from nephila.review.security import Access

LOOPBACK = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. InputError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        raise InputError(f"cannot listen at {host}, port {port}: {error}; choose another --port") from None
    found.listen(128)
    return found


def names_of(host: str, port: int) -> frozenset[str]:
    """Host headers that are answered."""
    if is_loopback(host):
        return frozenset(f"{name}:{port}" for name in (LOOPBACK, "localhost", *((f"[{host}]",) if ":" in host else ())))
    if ipaddress.ip_address(host).is_unspecified:
        names = {LOOPBACK, "localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
        return frozenset(f"{name}:{port}" for name in names | _addresses())
    return frozenset({f"{f'[{host}]' if ':' in host else host}:{port}"})


def _addresses() -> set[str]:
    """This machine's own addresses, as far as its name gives them."""
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    except OSError:
        return set()


def serve(folder: Path, host: str, port: int, *, open_browser: bool, say: Callable[[str], None]) -> None:
    """Serve the project until Ctrl-C. `say` prints a line."""
    import uvicorn

    from nephila.review.app import create_app

    with listen(host, port) as found:
        number = int(found.getsockname()[1])
        access = Access(hosts=names_of(host, number), cookie=f"nephila_review_{number}")
        name = LOOPBACK if is_loopback(host) or host == "0.0.0.0" else host
        base = f"http://{f'[{name}]' if ':' in name else name}:{number}/"
        app = create_app(folder, access)
        say(f"{base}?token={access.token}")
        say("Ctrl-C ends it. Decisions are written to edits/ as they are taken.")
        if open_browser:
            webbrowser.open(f"{base}?token={access.opening_code()}")
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            lifespan="off",
            loop="asyncio",
            http="h11",
            ws="none",
            h11_max_incomplete_event_size=65536,
            timeout_graceful_shutdown=2,
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[found])
