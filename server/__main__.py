"""`python -m server` is `tarazu`."""

from server.cli import main

if __name__ == "__main__":
    main()
