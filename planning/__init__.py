"""Which models should share what? Demand, models, machines and costs as values, and what follows from them.

values.py     what a plan is made of: demand, models, machines, costs of serving, and how it is today
words.py      counts and times in words
requests.py   requests as a source tells them: sorted, and without what cannot be
measuring.py  rates, lengths and bursts of requests
served.py     what engines did with requests, as columns
traces.py     requests to simulate: recorded ones, a part of them, or such as rates let expect
peaks.py      who is busy when, and who peaks together
fleets.py     what a fleet says of its models
spectrum.py   the rank of the difference of two matrices
extraction.py whether a whole fine-tune could be an adapter; writes it
weights.py    what a configuration says of a model
catalogue.py  common GPUs
costs.py      what it takes to serve a model on a device, and where each figure is from
fitting.py    the costs that served requests show
calibration.py measures an engine by asking it
units.py      what stays in one engine, and what shares no device
loads.py      what a unit asks of one device
switching.py  what a switch between models takes, by its way
sharing.py    how some units could share devices, and how many they need
search.py     which units share what: the fewest devices
pools.py      a division as pools of a fleet
forecast.py   a division simulated: what tenants would see
placing.py    names of pools, devices, slices in a legal layout
planner.py    search, simulation, and search anew
reasons.py    why a model is served so, in one line
answer.py     the answer as plain data
naming.py     names that a fleet file takes
writing.py    a plan as a fleet
watching.py   what was planned beside what is measured, and whether another plan is better
page.py       the report, one HTML page
reading/      the edge: files, pages, the ledger, the driver
"""
