"""A reader of our pages that refuses what they must not have."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "wbr", "img", "br", "link", "hr", "input"}


class Reader(HTMLParser):
    """Text and elements of a page; refuses tags that do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text.append(data)


def read(path: Path, scripts: int = 0) -> Reader:
    """The page, checked: balanced, ids once each, and nothing that a browser would fetch.

    Its scripts are as many as expected, all of them inline.
    """
    content = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(content)
    reader.close()
    assert reader.open == []
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in reader.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        assert not any(name.startswith("on") for name in attributes), attributes
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert re.match(r"#|data:image/jpeg;base64,", attributes.get(name, "#")), attributes[name]
        for target in (attributes.get("href", "#"), attributes.get("xlink:href", "#")):
            assert target == "#" or target.startswith("data:") or target[1:] in ids, target[:80]
    inline = [attributes for tag, attributes in reader.elements if tag == "script"]
    assert len(inline) == content.lower().count("<script") == scripts
    assert all("src" not in attributes for attributes in inline)
    for target in re.findall(r"url\(([^)]*)\)", content):
        assert target.lstrip("#") in ids
    assert "@import" not in content
    return reader


def words(reader: Reader) -> str:
    return " ".join(" ".join(reader.text).split())
