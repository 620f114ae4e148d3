"""OpenAI's bodies and event streams: what a client asks, what an engine may see of it, what comes back."""
