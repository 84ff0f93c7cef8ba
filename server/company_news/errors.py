"""What can go wrong with a company's webhook."""

from billing_engine.errors import Invalid, NotFound


class WebhookUrlRefused(Invalid):
    """Nothing of ours is sent there; `problem` says why."""

    code = "WEBHOOK_URL_REFUSED"
    detail = "Webhooks are not sent to this URL."


class WebhookNotSet(NotFound):
    """The company has no webhook."""

    code = "WEBHOOK_NOT_SET"
    detail = "No webhook is set."
