"""The gateway's door: what a client may ask, at what cost to us, and where it is told so."""
