"""`streamlift weights`: lists, downloads and checks models."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from streamlift.cli.exit_codes import OK
from streamlift.errors import ConfigError

__all__ = ["add_weights"]


def add_weights(commands: Any, common: argparse.ArgumentParser) -> None:
    weights = commands.add_parser("weights", parents=[common], help="download and check models")
    actions = weights.add_subparsers(required=True, metavar="ACTION")
    for action, text in (
        ("list", "what is known and what is here"),
        ("pull", "download and verify"),
        ("verify", "hash what is here"),
        ("path", "where files lie"),
        ("suggest", "the command that makes a graphics card useful, if no model for one is here"),
    ):
        command = actions.add_parser(action, parents=[common], help=text)
        command.add_argument("names", nargs="*", metavar="NAME", help="upscaler, folder or file")
        command.add_argument("--allow-unpinned", action="store_true")
        command.set_defaults(run=_weights, action=action)


def _weights(arguments: argparse.Namespace) -> int:
    from streamlift.upscalers.presence import gpu_command
    from streamlift.upscalers.weights import FileState, WeightStore, find_checkpoints

    store = WeightStore.from_environment(os.environ)
    if arguments.action == "suggest":
        if command := gpu_command(store):
            print(command)
        return OK
    chosen = find_checkpoints(arguments.names) if arguments.names else None
    action = arguments.action
    if action == "path" and chosen is None:
        print(store.directory)
        return OK
    if action == "pull" and chosen is None:
        raise ConfigError("say what to pull, e.g. streamlift weights pull realesrgan-x2")
    if action == "list":
        for status in store.statuses():
            if chosen is None or status.checkpoint in chosen:
                file = status.checkpoint
                size = f"{file.size / 1e6:8.1f} MB" if file.size else ""
                pin = "" if file.pinned else "  (unpinned)"
                print(f"{status.state:<10} {size:>12}  {file.name}  [{file.licence}]{pin}")
        return OK
    wanted = chosen or tuple(
        s.checkpoint for s in store.statuses() if s.state is not FileState.MISSING
    )
    for checkpoint in wanted:
        if action == "path":
            print(store.path(checkpoint))
        elif action == "pull":
            path = store.pull(
                checkpoint, allow_unpinned=arguments.allow_unpinned, progress=_show_download
            )
            print(f"\r{path}")
        else:
            store.verify(checkpoint, progress=_show_download)
            print(f"\rgood  {checkpoint.name}")
    return OK


def _show_download(checkpoint: Any, done: int, total: int | None) -> None:
    if sys.stderr.isatty():
        share = f"{100 * done / total:5.1f} %" if total else f"{done / 1e6:.1f} MB"
        print(f"\r{share}  {checkpoint.name}", end="", file=sys.stderr, flush=True)
