"""Any name as one segment of a key, which means the same in every file system and object store.

Lower-case letters, digits, ``-`` and ``_`` stand for themselves, every other byte of the name's UTF-8 is ``%`` and two
hexadecimal digits: upper-case letters too, since some file systems don't tell them from lower-case ones. A name too
long for a file name is replaced by its digest, and is then told by the files' content only.
"""

import hashlib
from urllib.parse import unquote

LONGEST_SEGMENT = 200
"""Characters of the longest segment; file systems take 255 bytes."""
_PLAIN_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_DIGEST_MARK = "~"


def quote_segment(name: str) -> str:
    """Quote a name; different names give different segments. Raises ValueError for what is not valid Unicode."""
    try:
        raw = name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} isn't valid Unicode") from error
    quoted = "".join(chr(byte) if byte in _PLAIN_BYTES else f"%{byte:02X}" for byte in raw)
    return quoted if len(quoted) <= LONGEST_SEGMENT else _DIGEST_MARK + hashlib.sha256(raw).hexdigest()


def unquote_segment(segment: str) -> str | None:
    """The name that a segment stands for; None where only the file's content tells it."""
    return None if segment.startswith(_DIGEST_MARK) else unquote(segment)
