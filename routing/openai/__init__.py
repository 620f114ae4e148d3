"""OpenAI's bodies and event streams: read from clients, rewritten for engines and back."""
