# Sourced by the scripts here: makes .venv, and installs into it when what is asked for has changed.
# Honours STREAMLIFT_TORCH_INDEX (an extra package index, e.g. the CPU builds of torch) and PYTHON.

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "streamlift needs Python 3.11, 3.12 or 3.13 with venv; none was found" >&2
  return 1
}

# What scripts/test installs, and scripts/lock locks.
TESTED_EXTRAS=server,cluster,ray,torch,test,train,docs

# A number that changes when what is asked for changes.
requirements_sum() {
  {
    sed -n '/^dependencies = /p; /^\[project.optional-dependencies\]/,/^\[project.scripts\]/p' pyproject.toml
    cat constraints.txt
  } | cksum | cut -d' ' -f1
}

# install_locked: what is in locks/ci.txt, each file by its hash. Where that cannot be done it says
# why, and nothing is locked; STREAMLIFT_LOCKED=1 makes it a failure.
install_locked() {
  local why
  if ! head -n 1 locks/ci.txt | grep -q " $(requirements_sum)\$"; then
    why="locks/ci.txt was made of other requirements; run scripts/lock"
  elif .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --require-hashes --no-deps -r locks/ci.txt; then
    return
  else
    why="this package index has not what is in locks/ci.txt"
  fi
  echo "not locked: $why" >&2
  if [ -n "${STREAMLIFT_LOCKED:-}" ]; then return 1; fi
}

# ensure_environment EXTRAS: e.g. "server" or "server,torch,test"
ensure_environment() {
  local extras=$1 wanted python
  wanted=$(cat pyproject.toml constraints.txt locks/ci.txt <(echo "$extras ${STREAMLIFT_TORCH_INDEX:-}") | cksum)
  if [ -x .venv/bin/streamlift ] && [ "$(cat .venv/installed 2>/dev/null)" = "$wanted" ]; then
    return
  fi
  if [ ! -x .venv/bin/python ]; then
    python=$(find_python)
    echo "making .venv with $($python --version)" >&2
    "$python" -m venv .venv
  fi
  echo "installing streamlift[$extras] into .venv" >&2
  if [ "$extras" = "$TESTED_EXTRAS" ]; then install_locked; fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    ${STREAMLIFT_TORCH_INDEX:+--extra-index-url "$STREAMLIFT_TORCH_INDEX"} \
    -c constraints.txt -e ".[$extras]"
  echo "$wanted" >.venv/installed
}

# in_foreground COMMAND...: run it, and tell it to end when this script is told to; bash alone would
# first wait for it. Returns its status when it has ended.
in_foreground() {
  "$@" &
  local child=$! status=0 told=
  trap 'told=yes; kill -TERM "$child" 2>/dev/null || true' TERM INT HUP
  wait "$child" || status=$?
  # A signal ends the first wait, not the child.
  while kill -0 "$child" 2>/dev/null; do wait "$child" || status=$?; done
  trap - TERM INT HUP
  if [ -n "$told" ]; then exit "$status"; fi
  return "$status"
}
