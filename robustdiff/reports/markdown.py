"""Names in Markdown: of files, folders and classes, which may be anybody's."""

import re

_STEERING = re.compile(r"([\\`*_\[\]<|~&:])")


def plain_text(text: str) -> str:
    """Escape text so that Markdown shows it as it stands, on one line and in one table cell."""
    visible = "".join(c if c.isprintable() else " " for c in text)
    return _STEERING.sub(r"\\\1", visible)
