"""What can go wrong with metered usage."""

from billing_engine.errors import Invalid


class UsageTypeUnknown(Invalid):
    """The company's price list has no such type of usage, at that time."""

    code = "USAGE_TYPE_UNKNOWN"
    detail = "Your price list has no such type of usage."
