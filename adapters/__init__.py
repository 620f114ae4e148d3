"""LoRA adapters and the engines that host them: what they are, whether they fit, how they are loaded."""
