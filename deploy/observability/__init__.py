"""Prometheus and Grafana for Tenantry. docs/observability.md says how to use them.

prometheus.yml  what is scraped
rules/          what is recorded, and when somebody is told; tests/ has a case for every alert
dashboards.py   builds dashboards/*.json for Grafana, of the pieces in panels.py
"""
