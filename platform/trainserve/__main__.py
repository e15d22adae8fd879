"""`python -m trainserve` is the command `platform`."""

from trainserve.cli.main import main

if __name__ == "__main__":
    main()
