#!/bin/sh
# Make the virtual environment $1 with everything pinned in constraints.txt: with uv where it is on the PATH and
# works, else with venv and pip.
set -eu
venv=$1
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "PixelDojo needs Python 3.11 or newer; $python is $("$python" -V 2>&1). Try: make PYTHON=python3.12 ..." >&2
    exit 1
}

with_uv() {
    command -v uv >/dev/null 2>&1 || return 1
    # Trust what the system trusts, as pip does: behind a company's proxy nothing else works. (Two uv versions' names.)
    export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" UV_NATIVE_TLS="${UV_NATIVE_TLS:-1}"
    uv venv --quiet --allow-existing --python "$(command -v "$python")" "$venv" &&
        VIRTUAL_ENV=$venv uv pip install --quiet -c constraints.txt -e '.[dev]'
}

with_pip() {
    "$python" -m venv "$venv" &&
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
}

echo "Setting up $venv ..." >&2
if ! with_uv; then
    with_pip
fi
