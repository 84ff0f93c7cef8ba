"""Lawyers whose account is shut: out of every list, and for good when it is deleted (`server.auth.control.LawyerListing`)."""

from typing import Final

from server.people.ports import LawyerProfiles

#: What a deleted lawyer is called in old consultations.
DELETED_NAME: Final = "Deleted lawyer"


class Listing:
    """Whether a lawyer can be found at all."""

    def __init__(self, profiles: LawyerProfiles) -> None:
        self._profiles = profiles

    async def suspend(self, lawyer_id: str) -> None:
        """Hide the lawyer and take them offline. A running consultation is somebody else's to end."""
        await self._profiles.set_suspended(lawyer_id, is_suspended=True)

    async def restore(self, lawyer_id: str) -> None:
        """Show the lawyer again, verified or not as before, and offline: they say themselves when they are back."""
        await self._profiles.set_suspended(lawyer_id, is_suspended=False)

    async def anonymise(self, lawyer_id: str) -> None:
        """Hide the lawyer for good and forget who they were."""
        await self._profiles.erase(lawyer_id, name=DELETED_NAME)
