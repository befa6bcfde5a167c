"""The cases, a module per kind of promise; importing a module registers its cases."""

from . import answers, clients, limits, starting, stopping, surroundings  # noqa: F401
