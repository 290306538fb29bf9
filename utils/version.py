"""The version of the project; packaging, --version and cspyolo.__version__ read it here."""

VERSION = "0.2.0"
