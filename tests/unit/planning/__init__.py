"""Tests of planning: demand, models, machines and costs, and what follows from them."""
