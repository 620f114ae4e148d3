"""Files and batches of requests, run on what interactive requests leave.

opening.py   these parts, built for one fleet
desk.py      what a tenant may do with its files and batches
runner.py    runs batches: line by line, through restarts, each line once
run.py       one unfinished batch in memory
endings.py   the files that come out of a batch
journal.py   which lines have their answer: on disk
lines.py     what a line is, and what is written of it
vault.py     the folder of one gateway
storage.py   a folder or a bucket for files
sealing.py   frames of a file, sealed where there is a key
store.py     batches and names of files in the state database
answers.py   how a batch is described
values.py    files, batches, lines, answers
"""
