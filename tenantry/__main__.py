"""`python -m tenantry`: the command where no console script is installed, as in a Bento."""

from __future__ import annotations

from tenantry.app import main

if __name__ == "__main__":
    main()
