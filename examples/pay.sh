#!/usr/bin/env bash
# Books one sale, at most once: BRIDGE_TOKEN=… pay.sh URL KEY SALE
# Exit status: 0 the sale is booked, 1 it is certainly not booked, 2 its outcome is unknown: run again with the same KEY
# and SALE.
outcome=unknown exits_with=2 answer=
# However this program ends, the outcome is unknown unless it is set below.
trap 'rm -f "$answer"; exit "$exits_with"' EXIT
set -u
url=$1 key=$2 sale=$3 give_up=$((SECONDS + ${PATIENCE:-60}))
answer=$(mktemp) || exit
# Refusals of the sale. Any other error concerns one request: an earlier request with the same key may have booked the sale.
not_booked='gateway-rejected-parameters|pos-password-rejected|gateway-credentials-rejected|license-invalid'
not_booked+='|gateway-error|idempotency-key-reused'

while :; do
  : > "$answer"
  read -r fault status pause < <(curl --silent --max-time 20 --output "$answer" \
    --write-out '%{exitcode} %{http_code} %header{retry-after}\n' --header "Authorization: Bearer ${BRIDGE_TOKEN:-}" \
    --header 'Content-Type: application/json' --header "Idempotency-Key: $key" --data-raw "$sale" "$url")
  # A partial answer counts as no answer.
  [ "$fault" = 0 ] || status=000
  if [ "$status" = 201 ]; then
    outcome=booked exits_with=0
    break
  fi
  # Leave out the member `gateway`, which holds the gateway's text.
  said=$(tr -d '\n' < "$answer" | sed 's/,"gateway":{.*//')
  if [[ $status = [45]* && $said = *'"retryable":false'* ]]; then
    [[ $said =~ \"code\":\"($not_booked)\" ]] && outcome=not-booked exits_with=1
    break
  fi
  # Not decided, no answer, or not the bridge's answer: repeat with the same key.
  [[ $pause =~ ^[1-9][0-9]{0,5}$ ]] || pause=1
  [ $((SECONDS + pause)) -gt "$give_up" ] && break
  sleep "$pause"
done
printf '%s ' "$outcome"
cat "$answer"
echo
