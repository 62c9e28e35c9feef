"""A first transfer, from an account at one bank to an account at another:

    python examples/first_transfer.py http://127.0.0.1:8001 http://127.0.0.1:8002

It needs two running banks (`distribank up`) and httpx, and nothing of DistriBank's own code. It may be run again: the
holder is then known, the accounts are there, and the idempotency keys see to it that no money moves twice.
"""

import sys

import httpx

MARIA = {"name": "Maria da Silva", "cpf": "529.982.247-25", "password": "correct-horse-battery"}


def sign_in(url: str) -> httpx.Client:
    """Register Maria at the bank if it does not know her, and sign her in."""
    bank = httpx.Client(base_url=url, trust_env=False)
    registered = bank.post("/v1/holders", json=MARIA)
    if registered.status_code != 409:  # 409: the bank knows her already
        registered.raise_for_status()
    form = {"username": MARIA["cpf"], "password": MARIA["password"]}
    token = bank.post("/v1/token", data=form).raise_for_status().json()["access_token"]
    bank.headers["Authorization"] = f"Bearer {token}"
    return bank


def account_at(bank: httpx.Client) -> dict[str, str]:
    """Maria's oldest account there, opened if she has none: its bank and its number."""
    accounts = bank.get("/v1/accounts").raise_for_status().json()["items"]
    account = accounts[0] if accounts else bank.post("/v1/accounts", json={"type": "individual"}).json()
    return {"bank": account["bank"], "account": account["account"]}


def main(here: str, there: str) -> None:
    a, b = sign_in(here), sign_in(there)
    mine, other = account_at(a), account_at(b)
    once = {"Idempotency-Key": "first-deposit"}
    a.post(f"/v1/accounts/{mine['account']}/deposits", json={"amount": "100.00"}, headers=once).raise_for_status()
    order = {
        "debits": [{**mine, "amount": "30.00"}],
        "credits": [{**other, "amount": "30.00"}],
        "description": "first transfer",
    }
    transfer = a.post("/v1/transfers", json=order, headers={"Idempotency-Key": "first-transfer"})
    print(transfer.raise_for_status().json()["status"], transfer.json()["transfer_id"])
    for bank, account in ((a, mine), (b, other)):
        statement = bank.get(f"/v1/accounts/{account['account']}/statement").raise_for_status().json()
        for entry in statement["items"]:
            print(account["bank"], entry["direction"], entry["amount"], "balance", entry["balance_after"])


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) == 3 else sys.exit(__doc__)
