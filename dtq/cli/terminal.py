"""Makes text safe for a terminal."""


def printable(text: str) -> str:
    """Text without control characters: a worker's name, for one, must not control the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
