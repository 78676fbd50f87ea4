"""Listens to a stream of broadcasts by httpx-sse, comes back where it ends, and prints each event as a line of JSON."""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse

url, last_id, retry = sys.argv[1], "", 3.0
# A sign of life comes at least every 15 seconds by default: twice that long without one is a broken connection.
with httpx.Client(timeout=httpx.Timeout(10, read=30), trust_env=False) as client:
    while True:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        try:
            with connect_sse(client, "GET", url, headers=headers) as source:
                for event in source.iter_sse():
                    last_id = event.id or last_id
                    retry = retry if event.retry is None else event.retry / 1000
                    print(json.dumps({"type": event.event, "id": last_id, "data": event.data}), flush=True)
        except httpx.TransportError as fault:
            print(fault, file=sys.stderr)
        time.sleep(retry)
