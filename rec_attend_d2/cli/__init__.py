"""The command ``rec-attend``: train, count, evaluate. Each has a file of its own, which is thin over the package."""

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence

# Name of each command, which is that of its file here, and what it does.
COMMANDS = {
    "train": "learn to find the objects of your pictures: everything that has to be chosen follows from them",
    "count": "find and count the objects of pictures, a video or a camera",
    "evaluate": "compare what a model finds with what people outlined",
}


def main(words: Sequence[str] | None = None) -> None:
    """Run the command that ``words`` name, by default the command line's; what is wrong is said in one line."""
    # Of other libraries about themselves, which tells a user nothing.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
    warnings.filterwarnings("ignore", "pkg_resources is deprecated")
    words = sys.argv[1:] if words is None else list(words)
    parser = argparse.ArgumentParser(prog="rec-attend", description="Count objects by recurrent attention.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:  # importing the others would take seconds
            module = importlib.import_module(f".{name}", __name__)
            module.add_arguments(command)
    arguments = parser.parse_args(words)
    try:
        module.run(arguments)
    except (OSError, ValueError, FloatingPointError, MemoryError) as error:
        sys.exit(f"rec-attend {chosen}: {error}")
    except KeyboardInterrupt:
        print(f"rec-attend {chosen}: stopped. The same command goes on.", file=sys.stderr)
        sys.exit(130)
