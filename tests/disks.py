"""Disks that lose power or fail, under the real SQLite: a VFS that sees every write and sync of one store.

What is written passes through to real files, so that SQLite reads its own writes. Beside them the VFS remembers what
each file held at its last sync, and what was written since. A power cut keeps the former and a random half of the
latter, in sectors of 512 bytes: what a machine may find when it comes back. Only the store's own VFS is fragile; the
shared-memory index beside the log is rebuilt by SQLite and is not kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import apsw

SECTOR = 512


class PowerCut(apsw.IOError):
    """What SQLite is told by a disk that is no longer there, or that failed this once."""


@dataclass
class Content:
    """One file: what is on the platter, and the writes since (at an offset; ``None`` for data cuts the file there)."""

    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def synced(self) -> bytes:
        return self._after([(offset, data) for offset, data in self.pending])

    def survives(self, chance: Random) -> bytes:
        """The file after a power cut: each sector written since the last sync is there, or is not."""
        kept: list[tuple[int, bytes | None]] = []
        for offset, data in self.pending:
            if data is None:
                kept += [(offset, None)] if chance.random() < 0.5 else []
                continue
            while data:
                room = SECTOR - offset % SECTOR
                if chance.random() < 0.5:
                    kept.append((offset, data[:room]))
                offset, data = offset + room, data[room:]
        return self._after(kept)

    def _after(self, writes: list[tuple[int, bytes | None]]) -> bytes:
        image = bytearray(self.durable)
        for offset, data in writes:
            if data is None:
                del image[offset:]
            else:
                image.extend(bytes(max(0, offset + len(data) - len(image))))
                image[offset : offset + len(data)] = data
        return bytes(image)


class FragileDisk(apsw.VFS):
    """An apsw VFS under the name *name*. Operations are counted once ``armed``; number *cut_at* is the last that works.

    *once*: only the operation after it fails, as an I/O error would, and those that follow work again. *lying*: a sync
    is answered at once and reaches nothing.
    """

    def __init__(self, name: str, cut_at: int, *, once: bool = False, lying: bool = False) -> None:
        self.disk_name, self.cut_at, self.once, self.lying = name, cut_at, once, lying
        self.armed = False
        self.operations = 0
        self.failed_at: str | None = None
        """What was being done when it failed, such as ``write bank.db-wal``."""
        self.files: dict[str, Content] = {}
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return FragileFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self.operate("delete", filename)
        self.files.pop(filename, None)
        super().xDelete(filename, syncdir)

    def excepthook(self, *_error: object) -> None:
        """SQLite is told by its error code; nothing is to be printed."""

    @property
    def failed(self) -> bool:
        return self.failed_at is not None

    def operate(self, what: str, file: str) -> None:
        """One more operation reaches the disk, or fails."""
        if self.armed:
            self.operations += 1
        if self.operations > self.cut_at and not (self.once and self.failed):
            self.failed_at = self.failed_at or f"{what} {Path(file).name}"
            raise PowerCut("the disk is gone")

    def lose_power(self, chance: Random) -> None:
        """Leave in every file what survives a cut. Nothing has them open any more."""
        for name, content in sorted(self.files.items()):
            Path(name).write_bytes(content.survives(chance))
            Path(f"{name}-shm").unlink(missing_ok=True)


class FragileFile(apsw.VFSFile):
    def __init__(self, disk: FragileDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        assert path is not None, "a bank keeps nothing in temporary files"
        if path not in disk.files:
            there = Path(path)
            disk.files[path] = Content(there.read_bytes() if there.exists() else b"")
        self._path, self._content = path, disk.files[path]
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        interrupted = not self._disk.failed and not self._disk.once
        try:
            self._disk.operate("write", self._path)
        except PowerCut:
            if interrupted:
                self._content.pending.append((offset, bytes(data)))
            raise
        super().xWrite(data, offset)
        self._content.pending.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.operate("truncate", self._path)
        super().xTruncate(newsize)
        self._content.pending.append((newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.operate("sync", self._path)  # the machine below stays up: nothing real need be waited for
        if not self._disk.lying:
            self._content.durable = self._content.synced()
            self._content.pending.clear()
