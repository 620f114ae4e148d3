"""Kubernetes objects of a fleet, as a kustomize base: the command `manifests`.

command.py     the command
folder.py      which objects are in which file; writes them
cluster.py     what only the cluster's owner knows: images, sizes, where pods may run
site.py        a pool in its place: names, labels, images, and what must fit together
pods.py        what every pod of ours has: security, probes, the end, variables, volumes
engines.py     a pool's engines: StatefulSet, headless Service, PodDisruptionBudget
gateway.py     a pool's gateway: Deployment, Service, account, Role, claim
network.py     namespaces, and who may speak to whom
scaling.py     who sets the number of a pool's replicas: KEDA
monitoring.py  what Prometheus scrapes and records
ways_in.py     examples of an Ingress and an HTTPRoute
"""
