"""Messages between a DataLoader and its worker processes: pickles over a socket, big arrays in anonymous memory.

The memory has no name (memfd), only a descriptor that travels with the message: when either process dies, the
system frees it, so nothing can be left behind. The bytes unpickled here come from a child that this process forked,
over a socket pair that nothing else holds; no file is read this way.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import struct
from typing import Any

__all__ = ["receive", "send"]

_HEAD = struct.Struct("<QQ?")
_ALIGN = 64
_SHARE_FROM = 1 << 16  # smaller messages are cheaper to copy than to map


def send(sock: socket.socket, message: Any, share: bool) -> None:
    """Send one object; arrays go through shared memory when `share` and they are worth it."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, 5, buffer_callback=buffers.append)
    views = [b.raw() for b in buffers]
    sizes = struct.pack(f"<{len(views)}Q", *(v.nbytes for v in views))
    total = sum(v.nbytes for v in views)
    shared = share and total >= _SHARE_FROM and hasattr(os, "memfd_create") and hasattr(socket, "send_fds")
    head = _HEAD.pack(len(body), len(views), shared)
    if not shared:
        sock.sendall(b"".join([head, sizes, body, *views]))
        return
    fd = os.memfd_create("millstream-batch")
    try:
        at = 0
        for view in views:
            _write(fd, view, at)
            at = _aligned(at + view.nbytes)
        os.ftruncate(fd, max(at, 1))
        socket.send_fds(sock, [head], [fd])
        sock.sendall(sizes + body)
    finally:
        os.close(fd)


def receive(sock: socket.socket) -> Any:
    """The next object; EOFError when the other end is gone, TimeoutError after the socket's timeout."""
    fds: list[int] = []
    if hasattr(socket, "recv_fds"):
        first, fds, _, _ = socket.recv_fds(sock, _HEAD.size, 1)
    else:
        first = sock.recv(_HEAD.size)
    if not first:
        raise EOFError
    try:
        head = first + (_exactly(sock, _HEAD.size - len(first)) if len(first) < _HEAD.size else b"")
        length, count, shared = _HEAD.unpack(head)
        sizes = struct.unpack(f"<{count}Q", _exactly(sock, 8 * count))
        body = _exactly(sock, length)
        if not shared:
            return pickle.loads(body, buffers=[_exactly(sock, n) for n in sizes])
        memory = memoryview(mmap.mmap(fds[0], 0))
        views, at = [], 0
        for size in sizes:
            views.append(memory[at : at + size])
            at = _aligned(at + size)
        return pickle.loads(body, buffers=views)
    finally:
        for fd in fds:
            os.close(fd)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN


def _write(fd: int, view: memoryview, at: int) -> None:
    while view.nbytes:
        done = os.pwrite(fd, view[: 1 << 30], at)
        view, at = view[done:], at + done


def _exactly(sock: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view.nbytes:
        got = sock.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
    return data
