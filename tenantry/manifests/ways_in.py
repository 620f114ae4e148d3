"""Examples of how requests come to a pool's gateway from outside. No kustomization names them."""

from __future__ import annotations

import math

from tenantry.manifests.gateway import GATEWAY
from tenantry.manifests.site import GATEWAY_PORT, Object, Site

DOMAIN = "example.com"


def ingress(site: Site) -> Object:
    """Return an Ingress for ingress-nginx: nothing is held back, and no answer is cut off."""
    longest, nginx = str(math.ceil(site.fleet.longest_request_s)), "nginx.ingress.kubernetes.io"
    annotations = {
        f"{nginx}/proxy-buffering": "off",
        f"{nginx}/proxy-request-buffering": "off",
        f"{nginx}/proxy-body-size": "0",  # the gateway has bounds of its own
        f"{nginx}/proxy-read-timeout": longest,
        f"{nginx}/proxy-send-timeout": longest,
    }
    service = {"name": site.gateway, "port": {"number": GATEWAY_PORT}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": {"service": service}}]
    host = f"{site.pool.name}.{DOMAIN}"
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {**site.meta(site.gateway, GATEWAY), "annotations": annotations},
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": [host], "secretName": f"{site.pool.name}-tls"}],
            "rules": [{"host": host, "http": {"paths": paths}}],
        },
    }


def http_route(site: Site) -> Object:
    """Return an HTTPRoute of the Gateway API, whose implementations relay streams as they come."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": site.meta(site.gateway, GATEWAY),
        "spec": {
            "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "hostnames": [f"{site.pool.name}.{DOMAIN}"],
            "rules": [
                {
                    "backendRefs": [{"name": site.gateway, "port": GATEWAY_PORT}],
                    "timeouts": {"request": f"{math.ceil(site.fleet.longest_request_s)}s"},
                }
            ],
        },
    }
