"""One engine process: how vLLM is started, proves itself, holds adapters, and is kept alive.

host.py            what an engine's process answers to the gateway: vLLM's OpenAI app, calls about adapters
supervisor.py      loads an engine, watches it, starts it again, ends it
vllm_engine.py     makes vLLM's engine and its OpenAI app
builder.py         starts an engine in a thread, and gives that up within a moment
vllm_args.py       the flags that an engine gets
selftest.py        does this engine work
trial.py           does an adapter work on this engine
questions.py       what an engine is asked to see that
loader/            which adapters are in the engine, and how they come and go
worker/            what vLLM's worker does for us that vLLM has no call for
heartbeat.py       does the engine's core still turn
health.py          how an engine stands, as a value that travels
standing.py        how it stands after its starts and deaths, and when the next start is due
residency.py       what the gateway wants in an engine, and what is there, as values that travel
protocol.py        private headers and routes between gateway and engine
handler.py         what an engine answers where vLLM breaks on a request
last_words.py      what an engine's processes said before they died
words.py           how a failure is put into a line, and for whom
orphans.py         which processes belong to which worker's engine
engine_process.py  what a process that vLLM starts does first
logs.py            how every process writes its log
metric.py          one metric, as data
engine_metrics.py  which of vLLM's metrics stay bounded
secrets.py         what is derived from the deployment's one secret
"""
