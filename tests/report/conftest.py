"""Pages as a browser reads them."""

from collections.abc import Callable
from html.parser import HTMLParser

import pytest


class Page(HTMLParser):
    """Tags with their attributes, and the text of cells."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def read_page() -> Callable[[str], Page]:
    """A function from the text of a page to what is in it."""
    return Page
