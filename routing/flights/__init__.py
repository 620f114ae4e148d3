"""One request's way to an engine and back: asked, asked again, relayed, settled."""
