"""The pairs in sled's file: the appendix of checkpoint-format.md."""

import zlib

from frames import Corrupt

LOG_BEGINS = 20
REPLACE, CHANGE, IN_BLOBS = 8, 10, (7, 9, 11)


class _Ended(Exception):
    pass


class _Cursor:
    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def take(self, count):
        if self.at + count > len(self.data):
            raise _Ended
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken

    def byte(self):
        return self.take(1)[0]

    def number(self):
        first = self.byte()
        if first <= 240:
            return first
        if first <= 248:
            return 240 + 256 * (first - 241) + self.byte()
        if first == 249:
            high, low = self.take(2)
            return 2288 + 256 * high + low
        return int.from_bytes(self.take(first - 247), "little")

    def text(self):
        return self.take(self.number())


def pairs(data):
    """Every pair of the log, later ones over earlier ones."""
    found, prefixes = {}, {}
    log = _Cursor(data, LOG_BEGINS)
    while True:
        try:
            crc = int.from_bytes(log.take(4), "little")
            begin = log.at
            kind = log.byte()
            length, _, page = log.number(), log.number(), log.number()
            header = data[begin : log.at]
            body = log.take(length)
        except _Ended:
            return found
        if kind == 0 or zlib.crc32(header, zlib.crc32(body)) ^ 0xFFFFFFFF != crc:
            return found
        if kind in IN_BLOBS:
            raise Corrupt("the database refers to blobs")
        try:
            _apply(kind, page, _Cursor(body), prefixes, found)
        except _Ended:
            raise Corrupt("a message of the database is cut off") from None


def _apply(kind, page, body, prefixes, found):
    if kind == REPLACE:
        body.number(), body.number(), body.byte()
        length = body.byte()
        prefixes[page] = prefix = body.text()[:length]
        body.text()
        is_index = body.byte()
        keys = [prefix + body.text() for _ in range(body.number())]
        if not is_index:
            found.update((key, body.text()) for key in keys)
    elif kind == CHANGE and body.byte() == 0:
        key = prefixes.get(page, b"") + body.text()
        found[key] = body.text()
