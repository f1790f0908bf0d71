"""HTML pages of one file each: names are escaped, and a page loads nothing from elsewhere."""

from pathlib import Path

from robustdiff.files.atomic import write_text


def render(template: str, **values: object) -> str:
    """Fill in a template of this folder; every text is escaped."""
    # Imported here because every training imports what writes pages, and this takes a while.
    from jinja2 import Environment, PackageLoader

    loader = PackageLoader("robustdiff.reports", "")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(**values)


def write_page(path: Path, page: str) -> None:
    """Write a page atomically; bytes of names that are not UTF-8 are spelled out."""
    # A page has one encoding.
    write_text(path, page.encode(errors="backslashreplace").decode())
