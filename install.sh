#!/bin/sh
# Installs sdsetup for this user on Linux and macOS, without root rights:
#
#     sh install.sh                     from the clone or release that this file lies in, else from PyPI
#     sh install.sh --lean              without PyTorch: 120 MB instead of 350
#     sh install.sh --offline BUNDLE    from a bundle (sdsetup install --bundle FOLDER), without a network
#     sh install.sh --command-only      the command alone, without converting and drawing
#
# What else is given goes on to `sdsetup install`. Run it again after an interruption: it goes on.
# Variables: SDSETUP_FROM says what pip installs instead (a wheel, a folder, sdsetup==VERSION).
set -eu

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "error: $1"
  shift
  for line in "$@"; do say "next: $line"; done
  exit 1
}

# The program that runs gets Ctrl-C too, and says nothing or the like.
trap 'say ""; say "Interrupted. Run the same command to go on."; exit 130' INT

home=${HOME:-}
[ -n "$home" ] || fail "HOME is not set, so there is no place to install to." "set HOME to your folder, then run this again."
case $(uname -s) in
  Darwin) data="$home/Library/Application Support/sdsetup" ;;
  Linux) data="${XDG_DATA_HOME:-$home/.local/share}/sdsetup" ;;
  *) fail "$(uname -s) is neither Linux nor macOS." "on Windows run install.cmd." ;;
esac
environment="$data/venv"

command_only=no
offline=''
previous=''
for argument in "$@"; do
  case $previous$argument in
    --offline=*) offline=${argument#--offline=} ;;
  esac
  if [ "$previous" = --offline ]; then offline=$argument; fi
  if [ "$argument" = --command-only ]; then command_only=yes; fi
  case $argument in
    -h | --help)
      if [ -f "$0" ]; then sed -n '2,/^set -eu/{/^# \{0,1\}/{s///;p;}}' "$0" >&2; fi
      exit 0 ;;
    --dry-run)
      if [ -x "$environment/bin/sdsetup" ]; then exec "$environment/bin/sdsetup" install "$@"; fi
      say "This would make an environment in $environment and put the command sdsetup on PATH."
      say "Nothing was written. What comes then: sdsetup install --dry-run, once the command is there."
      exit 0 ;;
  esac
  previous=$argument
done

# Settings of other programs that would send packages elsewhere, or change what Python imports.
unset PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV 2>/dev/null || true

# run_module PYTHON CLONE MODULE...: PYTHON -m MODULE, which would answer Ctrl-C with its whole stack; in a clone
# without the settings of pip's that send packages elsewhere, which building the command would meet too.
run_module() {
  interpreter=$1
  shift
  # Deaf until its first lines ran: a Python that is still starting answers with its stack too. pip wants Ctrl-C
  # as it comes.
  (trap '' INT; exec "$interpreter" -c 'import os, runpy, signal, sys
try:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    clone = sys.argv.pop(1)
    if clone:
        sys.path.insert(0, clone)
        from sdsetup.bootstrap import child_environment
        try:
            cleaned = child_environment.for_pip(child_environment.pip_settings(sys.executable))
        except child_environment.SetupError as error:
            sys.exit(error.message)
        sys.path.remove(clone)
        os.environ.clear()
        os.environ.update(cleaned)
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
except KeyboardInterrupt:
    sys.exit(130)' "$@")
}

# 64-bit CPython 3.11 to 3.13 that can make environments.
fits() {
  "$1" -c 'import ensurepip, struct, sys, venv
sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13) and struct.calcsize("P") == 8
              and sys.implementation.name == "cpython"))' >/dev/null 2>&1
}

python=''
if [ -x "$environment/bin/python" ] && "$environment/bin/python" -c 'import pip' >/dev/null 2>&1; then
  python="$environment/bin/python"
else
  for candidate in ${SDSETUP_PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
    if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then
      python=$(command -v "$candidate")
      break
    fi
  done
  mkdir -p "$data" || fail "$data cannot be made." "see who owns the folder above it, then run this again."
  if [ -n "$python" ]; then
    say "Making an environment in $environment with $("$python" -V)"
    run_module "$python" "" venv --clear "$environment" || fail "the environment could not be made, for the reason above." \
      "free some space in $data, then run this again."
  elif command -v uv >/dev/null 2>&1; then
    say "Making an environment in $environment with uv"
    uv venv --seed --clear --python '>=3.11,<3.14' "$environment" || fail "uv found and fetched no fitting Python." \
      "uv python install 3.12, then run this again."
  else
    wants='Python 3.11, 3.12 or 3.13 with venv is needed, and none was found.'
    if command -v apt-get >/dev/null 2>&1; then
      fail "$wants" "sudo apt install python3 python3-venv"
    elif command -v dnf >/dev/null 2>&1; then
      fail "$wants" "sudo dnf install python3.12"
    elif command -v pacman >/dev/null 2>&1; then
      fail "$wants" "install uv, which brings one: sudo pacman -S uv"
    elif command -v zypper >/dev/null 2>&1; then
      fail "$wants" "sudo zypper install python312"
    elif command -v brew >/dev/null 2>&1; then
      fail "$wants" "brew install python@3.12"
    fi
    fail "$wants" "install one from https://www.python.org/downloads/, or uv from https://docs.astral.sh/uv/."
  fi
  python="$environment/bin/python"
fi

wheels=''
here=''
if [ -f "$0" ]; then here=$(cd "$(dirname "$0")" && pwd); fi
if [ -n "$offline" ]; then
  [ -d "$offline/wheels" ] || fail "$offline is no bundle: it has no folder wheels." \
    "make one on a machine with a network: sdsetup install --bundle FOLDER"
  wheels=$(cd "$offline/wheels" && pwd)
  from=sdsetup
elif [ -n "${SDSETUP_FROM:-}" ]; then
  from=$SDSETUP_FROM
elif [ -n "$here" ] && grep -qs '^name = "sdsetup"$' "$here/pyproject.toml"; then
  from=$here
else
  from=sdsetup
fi
say "Installing the command from $from; this takes up to a minute"
# What it needs, `sdsetup install` brings in the versions that were tested together.
without=--no-deps
if [ "$command_only" = yes ]; then without=''; fi
clone=''
if [ "$from" = "$here" ]; then clone=$here; fi
# Options, no variables: pip takes spaces in PIP_FIND_LINKS for the ends of paths.
run_module "$python" "$clone" pip --disable-pip-version-check --no-input install --quiet --no-compile --upgrade \
  --no-user --target= \
  ${without:+"$without"} ${wheels:+--no-index --find-links "$wheels"} "$from" || fail \
  "pip could not install it, for the reason above." \
  "without a network use a bundle (--offline BUNDLE); behind a proxy set HTTPS_PROXY; then run this again."

"$python" -I -m sdsetup.bootstrap.on_path
if [ "$command_only" = yes ]; then exit 0; fi
exec "$environment/bin/sdsetup" install "$@"
