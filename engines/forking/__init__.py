"""Starts engines from a process that has imported vLLM already: a fork server, one for each host.

server.py     the server as its host sees it: launched, watched, replaced, closed
preload.py    what the server does before it forks
child.py      what an engine's core does first when it has been forked
environ.py    the part of a process's environment that others read in /proc
dying.py      a process that ends with its parent

It is Python's own (`multiprocessing.forkserver`, 3.11): the server hears of each new process over a socket,
forks, and the child goes on as one that was spawned, only with its modules there. What the server has at its
start counts for no child: each takes over the environment that its host has then, and the mark by which
orphans are found (engines/orphans.py) is written over in the memory that the kernel shows as its own.
"""
