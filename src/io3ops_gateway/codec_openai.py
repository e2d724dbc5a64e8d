"""To come."""


def call(*_: object) -> None:
    return None
