"""What a user does on the page and sees there, in the words of the tests."""

from __future__ import annotations

import re
from urllib.parse import quote

from playwright.sync_api import Locator, Page, expect


class ArenaPage:
    """One open page. Columns are named by their letters."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base

    def open(self, *models: str, query: str = "") -> ArenaPage:
        """Open the page, with `models` from its link if there are any, and wait until it is set up."""
        asked = f"?models={quote(','.join(models), safe=':,')}" if models else "?"
        self.page.goto(f"{self.base}/{asked}{query}")
        if models:
            last = "abcdef"[len(models) - 1]
            expect(self.picker(last)).to_have_value(_begins(models[-1]))
        else:
            expect(self.picker("b")).not_to_have_value("")
        return self

    def picker(self, letter: str) -> Locator:
        """The model picker of a column."""
        return self.page.locator(f"#model-{letter} input")

    def log(self, letter: str) -> Locator:
        """The conversation in a column."""
        return self.page.locator(f"#chat-{letter} [role=log]")

    def growing(self, letter: str) -> Locator:
        """The answer that grows in a column; gone when it has ended."""
        return self.page.locator(f"#chat-{letter} .growing")

    def status(self, letter: str) -> Locator:
        """The status line of a column."""
        return self.page.locator(f"#status-{letter} .stat")

    def notice(self, letter: str) -> Locator:
        """What a column says about a failure."""
        return self.page.locator(f"#notice-{letter} .notice")

    @property
    def prompt(self) -> Locator:
        """The box for the prompt."""
        return self.page.locator("#prompt textarea")

    def send(self, text: str = "Hello there") -> None:
        """Type a prompt and press Enter."""
        self.prompt.fill(text)
        self.prompt.press("Enter")

    def in_state(self, letter: str, state: str) -> None:
        """Wait until a column is in `state`."""
        expect(self.status(letter)).to_have_attribute("data-state", state)

    def done(self, *letters: str) -> None:
        """Wait until these columns have their whole answers."""
        for letter in letters:
            self.in_state(letter, "done")

    def click(self, elem_id: str) -> None:
        """Click an element by its id."""
        self.page.locator(f"#{elem_id}").click()

    def tab(self, name: str) -> None:
        """Open a tab."""
        self.page.get_by_role("tab", name=name).click()


def _begins(model: str) -> re.Pattern[str]:
    return re.compile(rf"^{re.escape(model)}\b")
