"""What tests/browser/packages.mjs does with the package: `driver.py pay POS SALE KEY`, `resume`, `listen` or `refusals`."""

import json
import os
import sys

from concertpos_bridge import NOT_BOOKED, Booked, Bridge, Broadcast, FetchAgain, FileStore, Outcome, Refused, Unknown

bridge = Bridge(
    os.environ["BRIDGE"],
    os.environ["TOKEN"],
    "demo",
    store=FileStore(os.environ["STORE"]) if "STORE" in os.environ else None,
    timeout=float(os.environ.get("TIMEOUT", "20")),
)
patience = float(os.environ.get("PATIENCE", "60"))


def tell(outcome: Outcome) -> None:
    match outcome:
        case Booked(replayed=replayed, text=text):
            said = {"state": "booked", "replayed": replayed, "text": text}
        case Unknown(problem=problem, too_old=too_old):
            said = {"state": "unknown", "code": problem.code if problem else None, "tooOld": too_old}
        case _:
            said = {"state": "not-booked", "code": outcome.problem.code}
    print(json.dumps({"key": outcome.payment.key, **said}), flush=True)


match sys.argv[1:]:
    case ["pay", pos_id, sale, key]:
        tell(bridge.pay(int(pos_id), json.loads(sale), key=key or None, patience=patience))
    case ["resume"]:
        for outcome in bridge.resume(patience=patience):
            tell(outcome)
    case ["listen"]:
        try:
            for event in bridge.events():
                match event:
                    case Broadcast(message=message):
                        print(f"broadcast {message}", flush=True)
                    case FetchAgain(why=why):
                        print(f"fetch-again {why}", flush=True)
        except Refused as refused:
            sys.exit(str(refused))
    case ["refusals"]:
        print(json.dumps(sorted(NOT_BOOKED)))
    case _:
        sys.exit(__doc__)
