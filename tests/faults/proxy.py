"""A small TCP proxy, run as a process of its own, that fails as networks do: cuts, freezes, holds answers back, drags.

`python -m tests.faults.proxy NAME=LISTEN:TARGET …` (ports on loopback) says `ready`, then takes one order a line on its
standard input and answers each with `ok`:

    freeze NAME      no byte passes, in either direction; connections stay open
    hold NAME        requests pass, answers do not: the other side has done the work, and nobody hears of it
    thaw NAME        everything passes again, what was held first
    cut NAME         every connection is reset
    down NAME        every connection is reset and new ones are refused, until `up NAME`
    drag NAME S      each piece that a client sends waits S seconds first; 0 ends it
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import cast

HOST = "127.0.0.1"


class Side(asyncio.Protocol):
    """One of the two connections of a pipe."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.peer: Side | None = None
        self.transport: asyncio.Transport | None = None
        self.waiting: deque[bytes] = deque()
        self.dragged: deque[bytes] = deque()
        self.asks = False  # whether this is the client's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without being a subclass

    def data_received(self, data: bytes) -> None:
        if self.asks and (self.link.drag_s or self.dragged):
            # Each timer lets the oldest piece go, whichever timer comes first: the order of bytes is sacred.
            self.dragged.append(data)
            asyncio.get_running_loop().call_later(self.link.drag_s, lambda: self.pass_on(self.dragged.popleft()))
        else:
            self.pass_on(data)

    def pass_on(self, data: bytes) -> None:
        peer = self.peer
        if peer is None or peer.transport is None or self.link.holds(self):
            self.waiting.append(data)
        elif not peer.transport.is_closing():
            peer.transport.write(data)

    def flush(self) -> None:
        waiting, self.waiting = self.waiting, deque()
        for data in waiting:
            self.pass_on(data)

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.link.sides.discard(self)
        peer = self.peer
        if peer is not None and peer.transport is not None and not peer.transport.is_closing():
            # What a frozen link still holds is lost with the connection, as on any network.
            peer.transport.close() if error is None else peer.transport.abort()


class Link:
    """One listening port and where it leads."""

    def __init__(self, listen: int, target: int) -> None:
        self.listen = listen
        self.target = target
        self.sides: set[Side] = set()
        self.frozen = False
        self.held = False
        self.drag_s = 0.0
        self._server: asyncio.Server | None = None
        self._dials: set[asyncio.Task[None]] = set()

    def holds(self, side: Side) -> bool:
        return self.frozen or (self.held and not side.asks)

    async def up(self) -> None:
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._accept, HOST, self.listen, reuse_address=True)

    def _accept(self) -> Side:
        client = Side(self)
        client.asks = True
        self.sides.add(client)
        task = asyncio.ensure_future(self._dial(client))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)
        return client

    async def _dial(self, client: Side) -> None:
        def server_side() -> Side:
            side = Side(self)
            side.peer, client.peer = client, side
            self.sides.add(side)
            return side

        try:
            await asyncio.get_running_loop().create_connection(server_side, HOST, self.target)
        except OSError:
            if client.transport is not None:
                client.transport.abort()
            return
        if client.transport is None or client.transport.is_closing():
            assert client.peer is not None and client.peer.transport is not None
            client.peer.transport.abort()
            return
        client.flush()

    def thaw(self) -> None:
        self.frozen = self.held = False
        for side in list(self.sides):
            side.flush()

    def cut(self) -> None:
        for side in list(self.sides):
            if side.transport is not None:
                side.transport.abort()

    def down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()


async def obey(links: dict[str, Link], line: str) -> None:
    word, name, *rest = line.split()
    link = links[name]
    if word == "freeze":
        link.frozen = True
    elif word == "hold":
        link.held = True
    elif word == "thaw":
        link.thaw()
    elif word == "cut":
        link.cut()
    elif word == "down":
        link.down()
    elif word == "up":
        await link.up()
    elif word == "drag":
        link.drag_s = float(rest[0])
    else:
        raise ValueError(line)


async def main(words: list[str]) -> None:
    links = {}
    for word in words:
        name, _, ports = word.partition("=")
        listen, _, target = ports.partition(":")
        links[name] = Link(int(listen), int(target))
        await links[name].up()
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("ready", flush=True)
    while line := await orders.readline():  # nothing more: whoever started us is gone
        await obey(links, line.decode())
        print("ok", flush=True)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(sys.argv[1:]))
    else:
        uvloop.run(main(sys.argv[1:]))
