"""The project's version, used by packaging, --version and cspyolo.__version__."""

VERSION = "0.2.0"
