"""The version of this package; the build reads it too."""

VERSION = "0.1.0"
