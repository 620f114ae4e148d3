"""Which models should share what? Demand, models, machines and costs as values, and what follows from them.

values.py  what a plan is made of: demand, models, machines, costs of serving, and how it is today
"""
