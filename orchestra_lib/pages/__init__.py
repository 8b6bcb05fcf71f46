"""The executed runbooks as a book of HTML pages that needs no network, no JupyterLab and no server: open index.html.

What a page says of a run comes from a record and a notebook that are as they were sealed. A run that is not is shown as
tampered, with what was found, and with nothing of what its files claim now.
"""

from orchestra_lib.pages.book import write_pages

__all__ = ["write_pages"]
