"""Whole models take turns at the hosts of a pool: who goes, who comes, where and when.

view.py      what the rule may know; values
rule.py      what is to be done; pure
worth.py     what a waiting request is worth; pure
forecast.py  how long until a model would be awake; pure
"""
