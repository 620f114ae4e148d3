"""One engine process: how vLLM is started, proves itself, holds adapters, and is kept alive."""
