"""What a person can put right: shown as one line, without a traceback."""


class UserError(Exception):
    """A condition outside the program (a missing Java, a taken port, a service that is down), said so that it can be acted on."""
