"""The admin API: adapters, rollouts, replicas and keys, changed at run time over HTTP."""

from routing.admin.access import Books
from routing.admin.app import ADMIN_PREFIX, ADMIN_ROUTES, admin_app, is_admin_path
from routing.admin.live_feed import LiveFeed
from routing.admin.proxies import authentication
from routing.admin.uploads import Uploads

__all__ = [
    "ADMIN_PREFIX",
    "ADMIN_ROUTES",
    "Books",
    "LiveFeed",
    "Uploads",
    "admin_app",
    "authentication",
    "is_admin_path",
]
