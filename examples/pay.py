#!/usr/bin/env python3
"""Books one sale, at most once.

    BRIDGE_TOKEN=… pay.py URL KEY SALE

URL is …/points-of-sale/{pos_id}/payments, KEY the idempotency key of this sale, SALE its JSON. Store KEY and SALE on disk
before the first run, and run again with the same ones as long as the exit status is 2.

Exit status: 0 the sale is booked, 1 it is certainly not booked, 2 its outcome is unknown.
"""
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request

# Refusals of the sale. Any other error concerns one request: an earlier request with the same key may have booked the sale.
NOT_BOOKED = {"gateway-rejected-parameters", "pos-password-rejected", "gateway-credentials-rejected", "license-invalid",
              "gateway-error", "idempotency-key-reused"}


def problem_of(answer):
    """The bridge's problem document. None for an answer of a proxy, which says nothing about the sale."""
    problem = json.load(answer)
    is_problem = isinstance(problem, dict) and isinstance(problem.get("retryable"), bool)
    return problem if is_problem and isinstance(problem.get("code"), str) else None


def pay(url, token, key, sale, patience_s=60):
    """The outcome of the sale: ("booked", reply), ("not-booked", problem) or ("unknown", problem or None)."""
    request = urllib.request.Request(url, method="POST", data=sale.encode(), headers={
        "Authorization": f"Bearer {token}", "Content-Type": "application/json", "Idempotency-Key": key})
    give_up = time.monotonic() + patience_s
    while True:
        problem = None
        try:
            # Longer than the deadline of the bridge (server.deadline, 15 s).
            with urllib.request.urlopen(request, timeout=20) as response:
                if response.status == 201:
                    return "booked", json.load(response)
        except urllib.error.HTTPError as error:
            try:
                problem = problem_of(error)
            except (OSError, ValueError, http.client.HTTPException):
                pass
        except (OSError, ValueError, http.client.HTTPException):
            pass  # No complete answer: the sale may be booked. Repeat with the same key.
        if problem and not problem["retryable"]:
            return ("not-booked" if problem["code"] in NOT_BOOKED else "unknown"), problem
        pause = problem.get("retry_after") if problem else None
        pause = pause if isinstance(pause, int) and pause >= 0 else 1
        if time.monotonic() + pause > give_up:
            return "unknown", problem
        time.sleep(pause)


if __name__ == "__main__":
    status = 2
    try:
        token, patience_s = os.environ.get("BRIDGE_TOKEN", ""), float(os.environ.get("PATIENCE", "60"))
        outcome, said = pay(sys.argv[1], token, sys.argv[2], sys.argv[3], patience_s)
        status = {"booked": 0, "not-booked": 1, "unknown": 2}[outcome]
        print(outcome, json.dumps(said))
    except Exception as fault:  # Python's own exit status is 1, which means not booked.
        print(f"pay.py: {fault!r}", file=sys.stderr)
    sys.exit(status)
