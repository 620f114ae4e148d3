"""From an authenticated request to one replica and back: the gateway.

http/          the inference API: routes, callers, admission, connections, pages for developers
admin/         the admin API
console/       the operators' page, built from console/
openai/        bodies and event streams of OpenAI's API, and bounds on them
flights/       one request's trip: granted, sent, hedged, relayed, settled
scheduling/    when and where each request runs
replicas/      where replicas are, how each is reached, whether it is ready
catalog/       who calls, and what a model's name means: keys, adapters, versions
lifecycle/     a version from registered to retired; rollouts
observing/     who is told of ended requests: metrics, live figures, traces, log lines
usage/         the ledger of who used how much, and budgets
state/         the database
assembly.py    builds the parts of a gateway
gateway.py     how a gateway begins, drains and ends
asgi.py        one HTTP exchange
site.py        pages served from memory
errors.py      everything that a client can be told instead of an answer
random_ids.py  ids of requests
record.py      how one request went
types.py       what a request is for, what it takes, and how it ended
gc_tuning.py   when Python's garbage collector runs
"""
