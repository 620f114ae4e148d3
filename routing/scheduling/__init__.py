"""When and where does each request run? The dispatcher, and the policies that it asks.

dispatcher.py  the one stateful orchestrator: admits, grants, settles each ticket once
spare.py       which room lines of batches may use
grants.py      how a ticket gets its engine, or leaves the queue without one
accounts.py    what each tenant has in the gateway, and whether its next request may enter
refusals.py    errors for requests that cannot run, or have waited in vain
group.py       the state of one base model of a pool: engines, queues, service
groups.py      which groups there are, as pools come and go
group_report.py  a copy of that, for operators
members.py     which tenants may use a group, and which have left
drains.py      which slots drain, for which adapters
selection.py   which waiting request runs next on an engine
tickets.py     one request, from admission to settlement, and what it was granted
admission.py   caps: may it enter
rates.py       requests and tokens per minute
overflow.py    the memory that all queues share
scale.py       how many replicas a group should have, and which go first
autoscaling.py  the policy of that
forecast.py    how long it would wait
backlog.py     which requests wait, and which is next in one queue
flows.py       what stands together there
bands.py       the order of priority bands
fairness.py    which tenant has had least service
users.py       which user of a tenant has had least service
profile.py     which engine takes it: filters, scorers, the best
filters.py     may this engine take it
scorers.py     how good this engine would be for it
affinity.py    what its adapter has on an engine, and what that is worth
view.py        what policies may know of a group
locality.py    whether to wait for an engine that has the adapter in memory
leases.py      which slot should drain for an adapter that waits for one
occupancy.py   what part of a slot's time falls to each that uses it
state.py       what the gateway knows of one replica and its engine
health/        how healthy a replica is, and how much it may be given
floods/        which tenants flood, and how much they may take
decisions.py   the last decisions
replica_figures.py  the figures of a replica that operators see, each declared once
figure.py      how a figure is declared
report.py      what operators are shown
"""
