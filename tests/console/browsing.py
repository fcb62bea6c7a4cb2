"""A browser without JavaScript: it keeps cookies, and fills in and sends the forms of pages."""

from __future__ import annotations

from typing import Any

from webtest import TestApp, TestResponse

from tests.conftest import Member

HTML = "text/html; charset=utf-8"


class Browser(TestApp):  # type: ignore[misc]
    """A browser that opens pages of the console."""

    __test__ = False

    def log_in(self, member: Member, password: str | None = None) -> TestResponse:
        """Send the form of the login; return the reply."""
        form = self.get("/console/login").forms["login"]
        form["account"], form["username"] = member.account.realm, member.user.username
        form["password"] = member.password if password is None else password
        return form.submit(expect_errors=True)

    def open(self, path: str, status: int = 200) -> TestResponse:
        """Open a page, and check what every page has."""
        reply = self.get(path, status=status)
        assert reply.content_type == "text/html"
        assert "<h1" in reply.text
        return reply

    def token(self) -> str:
        """Return the token against CSRF of the forms."""
        return str(self.get("/console/nothing", status=404).forms["logout"]["csrf"].value)

    def send(self, path: str, status: int, **fields: Any) -> TestResponse:
        """Send a form with a valid token. The form need not be on a page."""
        return self.post(path, {"csrf": self.token(), **fields}, status=status)


def confirmed(reply: TestResponse) -> TestResponse:
    """Press the button of the page that shows what would be changed."""
    assert reply.status_int == 200, reply.text
    form = reply.forms["confirm"]
    assert reply.html.find(id="confirm").find("button")
    return form.submit()


def message_of(reply: TestResponse) -> str:
    """Follow the redirect, and return the message of the page about the change."""
    assert reply.status_int == 303, reply.text
    page = reply.follow()
    return str(page.html.find(class_="done").get_text(strip=True))
