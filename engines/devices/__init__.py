"""GPUs and MIG slices: what this machine has, which slice an engine gets, how a GPU can be divided.

layout.py      GPUs, slices and profiles as values; finds the slice that is meant
nvml.py        reads them from the driver
kv_cache.py    the KV cache that fits a slice beside the weights
pinning.py     prepares the start of an engine on its slice
profiles.py    the profiles of known GPUs, for machines that do not tell
packing.py     a legal layout for wanted slices
vllm_guard.py  corrects what vLLM asks the driver about slices
"""
