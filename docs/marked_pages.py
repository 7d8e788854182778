"""Pages of which a script writes the text between markers."""

import sys
from collections.abc import Iterable
from pathlib import Path


def filled(page: str, texts: dict[str, str]) -> str:
    """Return a page with the texts between those markers that it has."""
    for name, text in texts.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if begin in page:
            before, rest = page.split(begin, 1)
            around = "\n\n" if "\n" in text else ""
            page = f"{before}{begin}{around}{text}{around}{end}{rest.split(end, 1)[1]}"
    return page


def update(pages: Iterable[Path], texts: dict[str, str], script: str) -> None:
    """Write pages, or with --check on the command line say which is out of date."""
    for path in pages:
        page = path.read_text(encoding="utf-8")
        if "--check" not in sys.argv[1:]:
            path.write_text(filled(page, texts), encoding="utf-8")
        elif filled(page, texts) != page:
            sys.exit(f"{path} is out of date; run: python {script}")
