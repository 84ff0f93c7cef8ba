"""What can go wrong for an admin who looks."""

from billing_engine.errors import NotFound
from server.auth.errors import AccountNotFound

# An account that is not there is the same to whoever asks for it.
__all__ = ["AccountNotFound", "NoWallet"]


class NoWallet(NotFound):
    """The user exists; their role has no money here."""

    detail = "This user has neither a wallet nor earnings."
