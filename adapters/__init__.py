"""LoRA adapters: their sources, what is in them, whether they fit their base model, where they are kept."""
