"""`python -m app` is `nestvec`."""

from app.cli import main

if __name__ == "__main__":
    main()
