"""Exchanges the whole model of a running engine for another one of the same shape, and checks the answer.

turns.py       what a host's engines have in common
sleep.py       sleep and wake of an engine, and at which level
in_place.py    put and reload: whether it is legal, and doing it
live.py        a running engine and the model that it has
library.py     what is known of a host's models, read ahead of their turns
shape.py       whether two models are of the same shape
reading.py     the files of a model that an engine reads
digest.py      the digest of a model's content
salting.py     parts the models of one engine in its prefix cache
holding.py     keeps weights in host memory, as far as there is room
wake_check.py  whether a model answers after a switch as it did at first
metrics.py     answers that differed, on the engine's page
"""
