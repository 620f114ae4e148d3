"""When and where does each request run? The dispatcher, and the policies that it asks.

dispatcher.py  the one stateful orchestrator: decides, then acts; settles each ticket once
pool.py        one pool's state and decisions
tickets.py     one request, from admission to settlement
admission.py   caps: may it enter
rates.py       requests and tokens per minute
overflow.py    the memory that all queues share
forecast.py    how long it would wait, and whether that is worth its while
backlog.py     who waits, and who of them is next in one place
bands.py       the order of priority bands
fairness.py    which tenant has had least service
profile.py     which replica takes it: filters, scorers, the best
filters.py     may this replica take it
scorers.py     how good this replica would be for it
locality.py    whether to wait for a replica that has the adapter in memory
leases.py      whose slot is given to somebody who waits for one
occupancy.py   what part of a slot's time falls to each that uses it
state.py       what the gateway knows of one replica
health/        how well a replica is, and how much it may be given
floods/        who floods, and what such a tenant may take
decisions.py   the last decisions
replica_figures.py  the figures of a replica that operators see, each declared once
figure.py      how a figure is declared
report.py      what operators are shown
"""
