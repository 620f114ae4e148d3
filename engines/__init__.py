"""One host process: vLLM's start and self-test, its adapters, its restarts, and which models are awake.

assembly.py        makes one host of a fleet
shared_host.py     several base models in one process: each call goes to the host of its model
host.py            the answers for one engine to the gateway: vLLM's OpenAI app, calls about adapters
places.py          which of the base models of a process are awake
read_ahead.py      reads a model's weights ahead of its turn
known.py           what was seen of a base model: ways, seconds, memory
strikes.py         which ways rest, since they have failed
ways.py            the ways from one base model to another
cores.py           how many threads engines on CPUs have that share cores
supervisor.py      loads an engine, watches it, restarts it, ends it
start.py           starts the engines of one replica
built.py           an engine as it was started, and as it runs
vllm_engine.py     makes vLLM's engine and its OpenAI app
builder.py         starts an engine in a thread, and cancels that within a moment
vllm_args.py       the flags of an engine
selftest.py        the check of a started engine
trial.py           the check of an adapter on this engine
questions.py       the prompts of both checks
loader/            loading and unloading adapters
in_place_ways.py   the ways that keep the engine
sleeping.py        the ways that keep an engine asleep
forking/           a process that has imported vLLM, from which engines are forked
in_flight.py       counts requests, so that weights are exchanged under none
switching/         another whole model's weights in the engine that runs
worker/            our extensions of vLLM's worker
devices/           GPUs and MIG slices: what there is, and which one an engine gets
heartbeat.py       whether the engine's core still runs
health.py          an engine's state, as JSON
memory.py          what engines take of the machine's memory, or the devices'
shared_memory.py   room for what an engine's processes exchange, looked for before they start
draining.py        an ordered end of the process, told from a crash
last_resort.py     an end by force where the ordered one takes too long
restarts.py        an engine's state after starts and deaths; delays between starts
settings.py        a digest of the settings with which an engine runs
new_settings.py    checks those that the gateway gives
adapter_files.py   adapters' files on this machine
model_files.py     whole models' files on this machine
copies.py          a version's files: the gateway's, or a copy fetched by digest
residency.py       the adapters that the gateway wants in an engine, and those there, as JSON
protocol.py        private headers and routes between gateway and engine
speech.py          salt, turn and count of recordings, of which vLLM's forms say nothing
forms.py           forms with a recording, as vLLM takes them
handler.py         the answer where vLLM's handler breaks on a request
last_words.py      the last errors of an engine's processes
words.py           one line for a failure, for operators or tenants
orphans.py         ends processes that a killed worker left behind
engine_process.py  the first steps of a process that vLLM starts
logs.py            every process's log
metric.py          one metric, as data
keep_adapters.py   keeps an engine's adapters as they are wanted
engine_metrics.py  the metrics page of one replica; bounds vLLM's metrics
secrets.py         keys derived from the deployment's one secret
"""
