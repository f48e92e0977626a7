"""Text from elsewhere, as it may be shown: on a terminal, in a log, in a table or a figure.

Class names, paths, sample ids, manifests and the errors of libraries may hold codes that move the
cursor, recolour or rename the terminal, turn the direction of writing round or cannot be encoded.
"""

from __future__ import annotations

import re

from regroup_store.secrets import without_secrets

# Controls (C0 without tab and newline, DEL, C1), lone surrogates, separators of lines, and what
# changes the direction of writing or is not seen at all.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    r"""Return `text` without credentials, and with what acts or is not seen written as `\x1b`."""
    return _UNSEEN.sub(_spelt, without_secrets(text))


def _spelt(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
