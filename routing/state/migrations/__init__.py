"""How did the state database come to its present tables? One module in `versions` for each change."""
