"""What may go wrong between us and a payment gateway."""

from enum import StrEnum


class Fault(StrEnum):
    """One way a request can end that is no answer."""

    #: It takes the request and never answers.
    SILENT = "silent"
    #: It closes the connection and has done nothing.
    RESET = "reset"
    #: It does what was asked and closes the connection instead of answering.
    LOST_REPLY = "lost reply"
    #: 502 and a page for people.
    HTML_5XX = "5xx as HTML"
    #: 500 and the gateway's own JSON.
    JSON_5XX = "5xx as JSON"
    #: 429: too many requests; nothing was done.
    TOO_MANY = "429"
    #: 200 and a page for people.
    HTML_200 = "200 as HTML"
    #: 200 and JSON that is none of the gateway's shapes.
    OTHER_JSON = "200 with other JSON"
