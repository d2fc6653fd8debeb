"""What a terminal may be given."""


def printable(text: str) -> str:
    """What others wrote, such as the name of a task's type or of a worker, must not steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
