"""The main job, end to end, on real pictures: get data, train on four nodes, package, serve, ask, compare.

Run by `make demo`. Every step is the command that a person would type; it is printed before it runs. Whatever happens,
what it started is stopped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
OUT = ROOT / "demo-out"
PLATFORM = Path(sys.executable).parent / "platform"
NODES = 4
REQUIRED_TOP1 = 0.97
GRPC_EVERY = 5  # each 5th picture is asked over gRPC too


def main() -> int:
    """Run the demo; 0 if it did what it promises."""
    started = time.monotonic()
    OUT.mkdir(exist_ok=True)
    data = OUT / "digits"
    platform("data", "get", "digits", data)
    run = json.loads(platform("train", "-f", HERE / "classifier.yaml", "--data", data, "--nodes", NODES, "-o", "json"))
    archive = OUT / f"{run['name']}.mar"
    platform("package", run["name"], "-o", archive, "--name", run["name"])
    trained = trained_answers(Path(run["bundle"]).parent / "predictions.jsonl")
    with serving(archive) as server:
        pictures = list(trained)
        rest = served_answers(server, data, pictures)
        grpc = served_answers(server, data, pictures[::GRPC_EVERY], "--grpc")
    return report(run, archive, trained, rest, grpc, time.monotonic() - started)


def platform(*words: object) -> str:
    """Run one command to its end; returns what it printed on stdout."""
    say(words)
    done = subprocess.run([PLATFORM, *map(str, words)], stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    if done.returncode:
        sys.exit(f"demo: platform {words[0]} ended with exit status {done.returncode}")
    return done.stdout


def say(words: tuple[object, ...]) -> None:
    shown = [str(word.relative_to(ROOT)) if isinstance(word, Path) else str(word) for word in words]
    print(
        f"\n$ platform {' '.join(shown if len(shown) < 12 else [*shown[:6], f'... ({len(shown) - 6} more)'])}",
        flush=True,
    )


@contextmanager
def serving(archive: Path) -> Iterator[str]:
    """`platform serve` as long as a block lasts; gives the server's name. Stopped however the block ends."""
    say(("serve", archive))
    command = [PLATFORM, "serve", archive, "--name", f"demo-{os.getpid()}", "-o", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    try:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:  # one JSON document, once it is ready
            text += line
            if line == "}\n":
                break
        else:
            sys.exit(f"demo: platform serve ended with exit status {process.wait()}")
        yield json.loads(text)["name"]
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def interrupted(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM ends the demo as Ctrl-C does: in order."""
    raise KeyboardInterrupt


def trained_answers(file: Path) -> dict[str, tuple[str, str]]:
    """What training's last validation said: picture -> (its class, the class it was taken for)."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {line["picture"]: (line["class"], line["predicted"]) for line in lines}


def served_answers(server: str, data: Path, pictures: list[str], *options: str) -> dict[str, str]:
    """Picture -> class, asked of the server, one request a picture."""
    files = [data / picture for picture in pictures]
    answers: list[Any] = json.loads(platform("predict", server, *options, "--top", 1, "-o", "json", *files))
    return {str(Path(a["picture"]).relative_to(data)): a["predictions"][0]["class"] for a in answers}


def report(
    run: dict[str, Any],
    archive: Path,
    trained: dict[str, tuple[str, str]],
    rest: dict[str, str],
    grpc: dict[str, str],
    seconds: float,
) -> int:
    """Print what came out; 0 if accuracy and agreement are as promised."""
    differences = [
        f"  {picture}: trained {trained[picture][1]}, served {answer} over {protocol}"
        for protocol, answers in (("REST", rest), ("gRPC", grpc))
        for picture, answer in answers.items()
        if answer != trained[picture][1]
    ]
    count = len(trained)
    right_trained = sum(predicted == label for label, predicted in trained.values())
    right_served = sum(rest.get(picture) == label for picture, (label, _) in trained.items())
    enough = right_trained >= REQUIRED_TOP1 * count
    whole = len(rest) == count and len(grpc) == len(range(0, count, GRPC_EVERY))
    print(f"""
trained  top-1 {right_trained / count:.2%} ({right_trained} of {count} validation pictures, 20 % of each class)
served   top-1 {right_served / count:.2%} ({right_served} of {count} over REST; {len(grpc)} of them over gRPC too)
trained and served answers that differ: {len(differences)}{"".join(chr(10) + line for line in differences)}
took {seconds:.0f} s

where things are
  pictures  {OUT / "digits"}
  run       {Path(run["bundle"]).parents[1]}
  bundle    {run["bundle"]}
  archive   {archive}

next
  {PLATFORM} status {run["name"]}
  {PLATFORM} serve {run["name"]}
  {PLATFORM} predict {run["name"]} {OUT / "digits" / "3"}   (in a second terminal)""")
    if not enough:
        print(f"demo: top-1 is below {REQUIRED_TOP1:.0%}", file=sys.stderr)
    if not whole:
        print("demo: not every picture was answered", file=sys.stderr)
    return 0 if enough and whole and not differences else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupted)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("demo: interrupted")
