"""Text of CSV files: every cell comes back, and ordinary files look as they always did."""

import csv
import io

from robustdiff.files.csv_text import csv_text

ROWS = [["index", "file", "x"], [0, "a b.png", 0.25], [1, 'q"t, and\nmore', None], [2, "", True]]


def test_ordinary_rows_are_what_csv_writes():
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(ROWS)
    assert csv_text(ROWS) == text.getvalue()


def test_a_carriage_return_is_part_of_its_cell():
    rows = [["a\rb", "c"], ["\r", "d\r\ne"], ["f\r\r\ng", "\r\n"]]
    assert csv_text(rows).endswith('"\n')
    assert [*csv.reader(io.StringIO(csv_text(rows), newline=""))] == rows
