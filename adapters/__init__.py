"""LoRA adapters: their sources, their files, the checks against a base model, and the store."""
