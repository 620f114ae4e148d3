"""When and where does each request run? The dispatcher, and the policies that it asks."""
