"""The gateway's HTTP server: connections, routes, admission and answers."""
