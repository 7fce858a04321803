"""Import and start-up: median wall seconds of five fresh processes. Run: python benchmarks/startup.py."""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import elmd": [sys.executable, "-c", "import elmd"],
    "elmd --help": [sys.executable, "-m", "elmd", "--help"],
    "elmd list": [sys.executable, "-m", "elmd", "list"],
    "import elmd.agent": [sys.executable, "-c", "import elmd.agent"],
}


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    for name, command in COMMANDS.items():
        seconds(command)
        print(f"{name:<20} {statistics.median(seconds(command) for _ in range(5)):.3f} s")


if __name__ == "__main__":
    main()
