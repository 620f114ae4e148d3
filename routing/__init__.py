"""From an authenticated request to one replica and back: the gateway.

http/          the inference API: routes, callers, admission, connections, pages for developers
admin/         the admin API
console/       the operators' page, built from console/
openai/        bodies and event streams of OpenAI's API, and bounds on them
flights/       one request's trip: granted, sent, hedged, relayed, settled
scheduling/    when and where each request runs
turns/         which whole models are awake where, by turns
replicas/      where replicas are, how each is reached, whether it is ready
catalog/       who calls, and what a model's name means: keys, adapters, versions
lifecycle/     a version from registered to retired; rollouts
observing/     metrics, live figures, traces and log lines of ended requests
batches/       files of tenants, and batches of requests
usage/         the ledger of who used how much, and budgets
state/         the database
assembly.py    the parts of one gateway: built, started, drained, stopped
asgi.py        one HTTP exchange
site.py        pages served from memory
errors.py      every error that a client can get
types.py       values: a request's target, its size, its record
gc_tuning.py   when Python's garbage collector runs
"""
