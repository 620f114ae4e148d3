"""Which scheduler serves tenants best on real engines? One run, the same arrivals for each of them.

fleet.py      what is served: adapters, tenants, two engines with few slots
arrivals.py   who asks what and when: seeded lists and prompts
baselines.py  the other schedulers, as pure choices between engines
doors.py      ways in: through the gateway, or by a router to the engine that a baseline has chosen
routers.py    bare proxies, the least that a baseline has to pay for
answers.py    one streamed answer and its times
driving.py    open and closed loops of requests
engines.py    what the engines themselves say: adapters, loads, whether they are at rest
cores.py      who used the CPU
figures.py    percentiles, shares and fairness
phases.py     the phases of the comparison, and what is kept of each
connections.py  a started service, and what engines call the adapters
report.py     what was found, over all rounds
table.py      how it reads
fitting.py    what a step of an engine costs, for the simulator
"""
