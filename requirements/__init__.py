"""Locks of what is installed, and the program that installs it."""
