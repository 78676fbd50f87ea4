#!/usr/bin/env python3
"""Books one sale, at most once.

    BRIDGE_TOKEN=… pay.py URL KEY SALE

URL is …/points-of-sale/{pos_id}/payments, KEY this sale's own, SALE its JSON. Keep KEY and SALE on disk before the first
run, and run it again with the same ones for as long as it exits with 2.

Exits with 0 when the sale is booked, with 1 when it is certainly not, with 2 when that is not known yet.
"""
import json
import os
import sys
import time
import urllib.error
import urllib.request

# Refusals of the request that say nothing about an earlier one of the same sale.
INCONCLUSIVE = {"unauthenticated", "forbidden", "not-found", "unknown-instance", "internal-error"}


def pay(url, token, key, sale, patience_s=60):
    """What became of the sale: ("booked", reply), ("not-booked", problem) or ("unknown", problem or None)."""
    request = urllib.request.Request(url, method="POST", data=sale.encode(), headers={
        "Authorization": f"Bearer {token}", "Content-Type": "application/json", "Idempotency-Key": key})
    give_up = time.monotonic() + patience_s
    while True:
        problem = None
        try:
            # Longer than the bridge takes for any answer.
            with urllib.request.urlopen(request, timeout=20) as response:
                return "booked", json.load(response)
        except urllib.error.HTTPError as error:
            try:
                problem = json.load(error)
                if not problem["retryable"]:
                    return ("unknown" if problem["code"] in INCONCLUSIVE else "not-booked"), problem
            except (ValueError, KeyError, TypeError):
                pass  # Not the bridge's own words: something in between speaks, and knows nothing.
        except (OSError, ValueError):
            pass  # No whole answer: the sale may be booked or not. The same key asks again.
        pause = (problem or {}).get("retry_after", 1)
        if time.monotonic() + pause > give_up:
            return "unknown", problem
        time.sleep(pause)


if __name__ == "__main__":
    token, patience_s = os.environ.get("BRIDGE_TOKEN", ""), float(os.environ.get("PATIENCE", "60"))
    outcome, said = pay(sys.argv[1], token, sys.argv[2], sys.argv[3], patience_s)
    print(outcome, json.dumps(said))
    sys.exit({"booked": 0, "not-booked": 1, "unknown": 2}[outcome])
