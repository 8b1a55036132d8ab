"""``python -m sdft_cli`` is the same as the command ``sdft``."""

from sdft_cli.cli.app import main

if __name__ == "__main__":
    main()
