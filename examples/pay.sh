#!/usr/bin/env bash
# Books one sale, at most once: BRIDGE_TOKEN=… pay.sh URL KEY SALE
# Exits with 0 when it is booked, with 1 when it is certainly not, with 2 when that is not known yet: then run it again
# with the same KEY and SALE.
set -u
url=$1 key=$2 sale=$3
answer=$(mktemp) give_up=$((SECONDS + ${PATIENCE:-60}))
trap 'rm -f "$answer"' EXIT
finish() { printf '%s ' "$1"; cat "$answer"; echo; exit "$2"; }

while :; do
  : > "$answer"
  read -r status pause < <(curl --silent --max-time 20 --output "$answer" \
    --write-out '%{http_code} %header{retry-after}\n' --header "Authorization: Bearer ${BRIDGE_TOKEN:-}" \
    --header 'Content-Type: application/json' --header "Idempotency-Key: $key" --data "$sale" "$url")
  [ "$status" = 201 ] && finish booked 0
  if grep -q '"retryable":false' "$answer"; then
    # A refusal of the request itself says nothing about an earlier one of the same sale.
    grep -Eq '"code":"(unauthenticated|forbidden|not-found|unknown-instance|internal-error)"' "$answer" && finish unknown 2
    finish not-booked 1
  fi
  # Not decided, no answer, or not the bridge's own words: the same key asks again.
  pause=${pause:-1}
  [ $((SECONDS + pause)) -gt "$give_up" ] && finish unknown 2
  sleep "$pause"
done
