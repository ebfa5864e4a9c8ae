"""Reading pages as a browser does, for tests."""

import html.parser

HOSTILE = '<script>alert(1)</script>/../../x'  # a slide's id that should stay text


class Page(html.parser.HTMLParser):
    """A page's elements and text; raises where elements are not closed in their order."""

    VOID = ('meta', 'img', 'line', 'br', 'wbr', 'input')

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return ' '.join(''.join(self.texts).split())


def read(path):
    return Page(path.read_text(encoding='utf-8'))
