"""`python -m nestvec` is `nestvec`."""

from nestvec.cli import main

if __name__ == "__main__":
    main()
