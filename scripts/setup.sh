#!/bin/sh
# Make the virtual environment $1 with everything pinned in constraints.txt, with uv where it is on the PATH.
set -eu
venv=$1
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "PixelDojo needs Python 3.11 or newer; $python is $("$python" -V 2>&1). Try: make PYTHON=python3.12 ..." >&2
    exit 1
}
echo "Setting up $venv ..." >&2
if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --allow-existing --python "$(command -v "$python")" "$venv"
    VIRTUAL_ENV=$venv uv pip install --quiet -c constraints.txt -e '.[dev]'
else
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
fi
