"""Reads demand, models, machines and costs: from files, pages, the ledger, the driver. The edge of planning.

sources.py       which reader a file or an address needs, and the demand that it tells
trace_file.py    CSV of requests: time, model, prompt, completion; Azure's and BurstGPT's layouts
hand_table.py    a small table by hand: model, requests a day, tokens in, tokens out
request_log.py   one JSON object a line: this gateway's log, LiteLLM's spend logs, OpenAI's answers
counters.py      whose counters are known, and what sums of them show
metrics_page.py  a page of counters: of vLLM, LiteLLM or this gateway
prometheus.py    the same counters by the hour, from a Prometheus server
yaml_file.py     YAML with its lines
models.py        the models of a fleet: headers and configurations
weights.py       the numbers of two models side by side; writes an adapter's
machines.py      devices: of a file, of this machine, of a kind
costs_file.py    costs that were measured
ledger.py        the usage records in the state database
"""
