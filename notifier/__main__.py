"""`python -m notifier`."""

from notifier.commands import main

if __name__ == "__main__":
    main()
