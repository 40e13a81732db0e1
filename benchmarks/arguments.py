"""The command-line arguments that all benchmarks have in common."""

import argparse
from pathlib import Path


def parser_for(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser of the common arguments.

    Args:
        description: The script's docstring.
        rounds: Default number of rounds.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model's files")
    parser.add_argument(
        "--data",
        type=folder_if_there,
        help="folder with short.txt, paragraph.txt, long.txt, mix.jsonl; texts are made where it is absent",
    )
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--out", type=Path, help="default: a file of benchmarks/results/")
    return parser


def folder_if_there(value: str) -> Path | None:
    """Return a path if it is a folder, else None."""
    return Path(value) if Path(value).is_dir() else None
