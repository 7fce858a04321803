"""python -m elmd."""

from elmd.cli import main

main()
