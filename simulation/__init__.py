"""The gateway's own decisions under a virtual clock, over simulated engines. Runs no model, reads no file.

costs.py    how long one step of an engine takes, and what its KV cache holds
engine.py   one vLLM engine: batching, prefill, adapters in slots
driver.py   arrivals, steps and ticks in the order of time
gateway.py  the gateway's dispatcher decides where each call goes
turns.py    the gateway's turns of whole models that share a host
"""
