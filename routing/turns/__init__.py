"""Whole models take turns at the hosts of a pool: who goes, who comes, where and when.

view.py       what the rule may know; values
rule.py       what is to be done; pure
worth.py      what a waiting request is worth; pure
forecast.py   how long until a model would be awake; pure
figures.py    what was seen of a pool's requests of late; pure
costs.py      what switches took; pure
seats.py      a model at a host: its state, its failures
report.py     what operators see; values
timeline.py   who was awake when, and why that changed
switching.py  carries one switch out
pool.py       one pool: looks, asks the rule, acts
kept.py       what survives a restart of the gateway
waking.py     what waking a model would do
driver.py     all pools; operators' orders
"""
