"""The demo fleet's models: a tiny base model and five adapters, trained on this machine in under a minute."""
