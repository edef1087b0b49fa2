"""``python -m audit_core``: the same verbs as the pages."""

import sys

from audit_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
