"""A fleet under a virtual clock: what the gateway's own policy does at sizes that no small machine holds."""
