"""A plug-in: to import it is to register everything that it offers, but for its figure."""

from . import brightness, stripes, ternary  # noqa: F401
