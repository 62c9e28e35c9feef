"""``/docs`` in a real browser: a holder's whole way, from registering to the statement, on two real banks.

Debian's chromium or any Chrome that is installed; none is ever downloaded. No name but loopback's is resolved, and
every request that the pages make is looked at.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import BrowserContext, Locator, Page, ViewportSize, async_playwright

from tests.processes import PASSWORD, RealBank, network_of

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
MARIA = {"name": "Maria da Silva", "cpf": "529.982.247-25", "password": PASSWORD}
PATIENCE_MS = 15_000
SIZE: ViewportSize = {"width": 1200, "height": 900}
ALONE = [
    "--no-sandbox",  # a sandbox cannot be had as root, and the pages are our own
    "--disable-gpu",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

pytestmark = [
    pytest.mark.skipif(
        BROWSER is None, reason=f"no browser is installed: none of {', '.join(BROWSERS)} is on the PATH"
    ),
    pytest.mark.timeout(300),  # a page is drawn without a graphics card
]


@asynccontextmanager
async def browser(asked: list[str]) -> AsyncIterator[BrowserContext]:
    """A browser that cannot leave loopback; the address of each request that its pages make is put into *asked*."""
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=BROWSER, args=ALONE)
        context = await running.new_context(viewport=SIZE)
        context.set_default_timeout(PATIENCE_MS)
        context.on("request", lambda request: asked.append(request.url))
        try:
            yield context
        finally:
            await running.close()


class Docs:
    """The page ``/docs`` of one bank, used as a person uses it."""

    def __init__(self, page: Page, bank: RealBank) -> None:
        self.page = page
        self.bank = bank

    async def open(self) -> None:
        await self.page.goto(f"{self.bank.client.url}/docs")
        await self.page.locator(".opblock").first.wait_for()

    async def authorize(self) -> None:
        """Press *Authorize*, fill in the OAuth2 password form, and see that the page says so."""
        await self.page.locator(".auth-wrapper .authorize").click()
        dialog = self.page.locator(".dialog-ux")
        await dialog.locator("#oauth_username").fill(MARIA["cpf"])
        await dialog.locator("#oauth_password").fill(MARIA["password"])
        await dialog.locator("button.authorize").click()
        await dialog.get_by_text("Authorized", exact=True).wait_for()
        await dialog.locator("button.btn-done").click()

    async def call(self, method: str, path: str, body: Any = None, **fields: str) -> tuple[int, Any]:
        """Unfold one operation, fill it in, press *Execute*: the status and the body that the page then shows."""
        operation = self.operation(method, path)
        await operation.scroll_into_view_if_needed()
        if not await operation.locator(".opblock-body").count():
            await operation.locator(".opblock-summary-control").click()
        for name, value in fields.items():
            await operation.locator(f'tr[data-param-name="{name.replace("_", "-")}"] input').fill(value)
        if body is not None:
            await operation.locator("textarea.body-param__text").fill(json.dumps(body, indent=2))
        if await operation.locator("button.btn-clear").count():
            await operation.locator("button.btn-clear").click()
        await operation.locator("button.execute").click()
        answer = operation.locator(".live-responses-table tr.response")
        status = await answer.locator(".response-col_status").inner_text()
        said = await answer.locator(".highlight-code pre").first.inner_text()
        return int(status.split()[0]), json.loads(said)

    def operation(self, method: str, path: str) -> Locator:
        return self.page.locator(f'.opblock-{method}:has([data-path="{path}"])')

    async def picture(self, directory: Path | None, name: str) -> None:
        """What the window shows now, as *name*.png in *directory*, if one was given."""
        if directory is not None:
            await self.page.screenshot(path=directory / f"{name}.png")


async def test_a_holder_comes_from_registering_to_a_composite_transfer_in_docs_alone(
    tmp_path: Path, screenshots: Path | None
) -> None:
    asked: list[str] = []
    async with network_of(tmp_path / "network", 2) as (a, b), browser(asked) as context:
        at_a, at_b = Docs(await context.new_page(), a), Docs(await context.new_page(), b)
        opened: dict[str, str] = {}
        await at_a.open()
        await at_a.picture(screenshots, "docs-overview")
        await at_b.open()

        for docs, money in ((at_a, "100.00"), (at_b, "50.00")):
            status, person = await docs.call("post", "/v1/holders", MARIA)
            assert (status, person["cpf_masked"]) == (201, "***.982.247-**")
            await docs.authorize()
            status, account = await docs.call("post", "/v1/accounts", {"type": "individual"})
            assert status == 201
            opened[docs.bank.code] = number = account["account"]
            status, entry = await docs.call(
                "post", "/v1/accounts/{account}/deposits", {"amount": money}, account=number, Idempotency_Key="deposit"
            )
            assert (status, entry["balance_after"]) == (201, money)
        status, savings = await at_b.call("post", "/v1/accounts", {"type": "individual"})
        assert status == 201
        consent = {
            "account": opened[b.code],
            "initiator_bank": a.code,
            "max_per_transfer": "20.00",
            "expires_at": "2099-12-31T23:59:59Z",
        }
        status, given = await at_b.call("post", "/v1/consents", consent)
        assert (status, given["status"]) == (201, "active")
        order = {
            "debits": [
                {"account": opened[a.code], "amount": "30.00"},
                {"bank": b.code, "account": opened[b.code], "amount": "20.00"},
            ],
            "credits": [{"bank": b.code, "account": savings["account"], "amount": "50.00"}],
            "description": "two banks, one transfer",
        }
        status, transfer = await at_a.call("post", "/v1/transfers", order, Idempotency_Key="composite")
        assert (status, transfer["status"]) == (201, "completed")
        answer = at_a.operation("post", "/v1/transfers").locator(".live-responses-table")
        await answer.evaluate("element => element.scrollIntoView()")
        await at_a.picture(screenshots, "docs-transfer")

        for docs, number, entries in (
            (at_a, opened[a.code], [("debit", "30.00", "70.00"), ("credit", "100.00", "100.00")]),
            (at_b, opened[b.code], [("debit", "20.00", "30.00"), ("credit", "50.00", "50.00")]),
            (at_b, savings["account"], [("credit", "50.00", "50.00")]),
        ):
            status, statement = await docs.call("get", "/v1/accounts/{account}/statement", account=number)
            assert status == 200
            shown = [(entry["direction"], entry["amount"], entry["balance_after"]) for entry in statement["items"]]
            assert shown == entries

    assert {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}
