"""Lists products, sells one, repeats the sale, and handles an error, with a client generated from the bridge's OpenAPI
document.

    pip install openapi-python-client ruff
    openapi-python-client generate --path ../../../openapi/openapi.json --config generator.yaml --meta none \\
        --output-path generated/concertpos_bridge_client --overwrite
    BRIDGE_URL=http://127.0.0.1:8080 BRIDGE_TOKEN=… PYTHONPATH=generated python sell.py
"""

import os
import time
import uuid

from concertpos_bridge_client import AuthenticatedClient
from concertpos_bridge_client.api.catalogue import get_license, list_products
from concertpos_bridge_client.api.payments import list_payments, pay_items
from concertpos_bridge_client.models import (
    GetLicense,
    ListProducts,
    PayItem,
    PayItems,
    PaymentRecords,
    PaymentState,
    Problem,
    ProblemCode,
    SoldProduct,
)

INSTANCE, POINT_OF_SALE = "demo", 1

bridge = AuthenticatedClient(
    base_url=os.environ.get("BRIDGE_URL", "http://127.0.0.1:8080"), token=os.environ["BRIDGE_TOKEN"]
)


def sell(key: str, sale: PayItems) -> tuple[PayItem, bool] | Problem:
    """Books a sale once: repeats with the same key while that is safe and may succeed.

    Says with the reply whether it repeats an earlier one.
    """
    while True:
        answer = pay_items.sync_detailed(INSTANCE, POINT_OF_SALE, client=bridge, body=sale, idempotency_key=key)
        match answer.parsed:
            case PayItem() as reply:
                return reply, answer.headers.get("Idempotent-Replayed") == "true"
            # The outcome is unknown until a late reply arrives or a person settles the payment. Stop repeating.
            case Problem(code=ProblemCode.PAYMENT_OUTCOME_UNKNOWN) | Problem(retryable=False) as problem:
                return problem
            case Problem(retry_after=seconds):
                time.sleep(seconds or 1)
            case None:
                raise RuntimeError(f"an answer that is in no document: {answer.status_code}")


licence = get_license.sync(INSTANCE, client=bridge)
assert isinstance(licence, GetLicense), licence
print(f"licensed to {licence.license_.name}")
listed = list_products.sync(INSTANCE, POINT_OF_SALE, client=bridge)
assert isinstance(listed, ListProducts), listed
for product in listed.products:
    print(f"{product.id}  {product.product_name}  {product.price:.2f}")
first = listed.products[0]

key = str(uuid.uuid4())
sale = PayItems(payment_method=1, products=[SoldProduct(id=first.id, amount=2)])
sold, repeated = sell(key, sale), sell(key, sale)
assert isinstance(sold, tuple) and isinstance(repeated, tuple), (sold, repeated)
assert (sold[0], sold[1], repeated[1]) == (repeated[0], False, True), (sold, repeated)
print(f"sold two of {first.product_name}, once, although it was asked for twice")

found = list_payments.sync(INSTANCE, client=bridge, idempotency_key=key)
assert isinstance(found, PaymentRecords), found
assert [payment.state for payment in found.payments] == [PaymentState.BOOKED], found

mistake = sell(key, PayItems(payment_method=1, products=[SoldProduct(id=first.id, amount=3)]))
assert isinstance(mistake, Problem) and mistake.code is ProblemCode.IDEMPOTENCY_KEY_REUSED, mistake
print(f"another sale under its key: {mistake.status} {mistake.code}")
