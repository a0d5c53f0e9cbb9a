"""What keeps one object from being compiled."""

from __future__ import annotations


class CompileProblem(Exception):
    """A route that fits its schema but cannot be turned into Traefik's objects.

    ``code`` is the kebab-case word of the problem, ``field`` the path into the document, as YAML writes it
    (``("spec", "backends", 0, "agent")``). Nothing in it is secret.
    """

    def __init__(self, code: str, message: str, field: tuple[str | int, ...], hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.hint = hint
