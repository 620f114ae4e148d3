"""Many whole models on few devices: who gets a device next? `python -m benchmarks.simulator models`.

1. `devices`: devices, copies of models on them, calls; what each step of a run takes.
2. `workloads`: who asks for which model, and when.
3. `baselines`: what others do. `ours`: the gateway's own rule of turns.
4. `scenarios`: the fleets and loads that are compared.
5. `comparison`: what a run comes to, and how a comparison reads.
"""
