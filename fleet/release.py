"""Which release is this? Said here once: the package, the command and the gateway have it from here."""

VERSION = "0.1.0"
