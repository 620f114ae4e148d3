"""Is a new version as good as the one it replaces? Statistics of both sides of a split, and a verdict. Pure."""

from __future__ import annotations
