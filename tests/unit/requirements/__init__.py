"""The set-up of the environment."""
