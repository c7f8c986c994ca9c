"""``python -m rec_attend_d2.cli``, where the script is not on the path."""

from . import main

if __name__ == "__main__":
    main()
