"""Rows as the text of a CSV file, of which every cell can be read back."""

import csv
import io
from collections.abc import Iterable

_END = "\r\n"


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV, each ended by a line feed.

    Args:
        rows: The header, then the rest; cells are written as `str` has them, None as nothing.
    """
    # csv puts a cell into quotes for the characters of its own line end: without "\r" in that, a
    # name that holds one would end its row for whoever reads the file.
    text, lines = io.StringIO(newline=""), list[str]()
    writer = csv.writer(text, lineterminator=_END)
    for row in rows:
        writer.writerow(row)
        lines.append(text.getvalue().removesuffix(_END) + "\n")
        text.seek(0)
        text.truncate()
    return "".join(lines)
