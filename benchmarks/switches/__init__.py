"""What does a switch from one whole model to another cost here? `python -m benchmarks.switches` measures it.

__main__.py  the command, and the order of all steps
host.py      one host, whose ways are taken one at a time
plain.py     plain `vllm serve`, stopped and started
speed.py     tokens per second
models.py    the models, made on the spot
report.py    what was measured, as tables and as JSON
"""
