"""What a file is by its first bytes: web pages and pointers get saved under a model's name."""

from __future__ import annotations

import json
import struct
from enum import StrEnum
from pathlib import Path

__all__ = ["NO_CHECKPOINT", "Form", "form_of"]


class Form(StrEnum):
    """Forms that come up; the value is how a message calls them."""

    EMPTY = "an empty file"
    PAGE = "a web page (HTML), as a browser or a login page sends it"
    POINTER = "a Git LFS pointer: the file itself was not fetched (`git lfs pull` fetches it)"
    ANSWER = "a server's answer in JSON or XML"
    INDEX = "the index of a checkpoint in several parts: give one file that holds it whole"
    SAFETENSORS = "a safetensors file"
    TORCH = "a torch file"
    ONNX = "an ONNX graph"
    GGUF = "a GGUF file"
    ARCHIVE = "a packed archive; unpack it first"
    UNKNOWN = "bytes of no known form"


NO_CHECKPOINT = (
    Form.EMPTY,
    Form.PAGE,
    Form.POINTER,
    Form.ANSWER,
    Form.INDEX,
    Form.GGUF,
    Form.ARCHIVE,
)


def form_of(path: Path) -> Form:
    """Look at the first bytes. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(512)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    low = text[:64].lower()
    if not head:
        return Form.EMPTY
    if low.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return Form.PAGE
    if head.startswith(b"version https://git-lfs"):
        return Form.POINTER
    if text[:1] == b"{" and (b'"weight_map"' in text or b'"total_size"' in text):
        return Form.INDEX
    if low.startswith((b"<?xml", b"<error")) or _is_json(text):
        return Form.PAGE if b"<html" in text.lower() else Form.ANSWER
    if _is_safetensors(head):
        return Form.SAFETENSORS
    if head.startswith(b"PK\x03\x04") or _is_pickle(head):
        return Form.TORCH
    if head.startswith(b"GGUF"):
        return Form.GGUF
    if head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")):
        return Form.ARCHIVE
    if head[:1] == b"\x08" and (b"pytorch" in head[:64] or b"onnx" in head[:64].lower()):
        return Form.ONNX
    return Form.UNKNOWN


def _is_safetensors(head: bytes) -> bool:
    """The length of a JSON head, then the head."""
    if len(head) < 9:
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return 2 <= length < 100_000_000 and head[8:9] == b"{"


def _is_pickle(head: bytes) -> bool:
    return head[:1] == b"\x80" and len(head) > 1 and 2 <= head[1] <= 5


def _is_json(text: bytes) -> bool:
    if text[:1] not in (b"{", b"["):
        return False
    try:
        json.loads(text)
    except ValueError:
        return text[1:2] in (b'"', b"\n", b" ", b"\r")
    return True
