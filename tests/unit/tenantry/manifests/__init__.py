"""The Kubernetes objects of a fleet."""
