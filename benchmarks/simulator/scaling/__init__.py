"""How many replicas through a day? `python -m benchmarks.simulator scaling --trace FILE`.

1. `day`: the calls of a day, from a public trace.
2. `policies`: who says how many replicas there should be: the gateway, Kubernetes' HPA, nobody.
3. `cluster`: replicas that take a minute to come and go when they are empty, under the gateway's scheduler.
4. `comparison`: what a day comes to under each, and how that reads.
"""
