"""How a company hears of its wallet: its own webhook, its members' sockets, its owner's mailbox."""
