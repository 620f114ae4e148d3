"""What the gateway costs, and what the engine behind it still gives: measured, never estimated."""
