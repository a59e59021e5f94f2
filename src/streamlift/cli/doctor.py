"""`streamlift doctor`: checks this machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from streamlift.cli.arguments import load_given
from streamlift.cli.exit_codes import FAILED, OK

__all__ = ["add_doctor"]


def add_doctor(commands: Any, common: argparse.ArgumentParser) -> None:
    doctor = commands.add_parser("doctor", parents=[common], help="check this machine")
    doctor.add_argument("--config", type=Path)
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(run=_doctor, host=None, port=None, backend=None, save=None)


def _doctor(arguments: argparse.Namespace) -> int:
    from streamlift.doctor import examine

    report = examine(load_given(arguments))
    if arguments.json:
        print(json.dumps(report.as_json()))
    else:
        for check in report.checks:
            print(f"{'ok ' if check.ok else 'BAD'}  {check.name:<18} {check.detail}")
    return OK if report.ok else FAILED
