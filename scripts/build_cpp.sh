#!/usr/bin/env bash
# Build the C++ program, cpp/build/liteseg; arguments go to CMake.
#
#   bash scripts/build_cpp.sh               with OpenVINO of the Python environment
#   bash scripts/build_cpp.sh --sanitize    into cpp/build-sanitize, with address and undefined
#                                           behaviour sanitizers
#   bash scripts/build_cpp.sh -DONNXRUNTIME_DIR=DIR -DPADDLE_INFERENCE_DIR=DIR
#
# PYTHON names the interpreter of the environment (default: .venv-test's, .venv's, or python3).
set -euo pipefail
cd "$(dirname "$0")/.."
for candidate in .venv-test/bin/python .venv/bin/python python3; do
  [ -n "${PYTHON:-}" ] || ! command -v "$candidate" >/dev/null || PYTHON=$candidate
done
build=cpp/build
if [ "${1:-}" = --sanitize ]; then
  shift
  build=cpp/build-sanitize
  set -- -DLITESEG_SANITIZE=ON "$@"
fi
hash cmake c++ 2>/dev/null || {
  echo "error: CMake and a C++ compiler are required; on Debian: apt install cmake g++" \
    "libopencv-dev libyaml-cpp-dev libpng-dev libssl-dev" >&2
  exit 1
}
openvino=$("$PYTHON" -c 'import openvino.utils; print(openvino.utils.get_cmake_path())' 2>/dev/null) ||
  openvino=""
[ -z "$openvino" ] || set -- "-DOpenVINO_DIR=$openvino" "$@"
cmake -S cpp -B "$build" "$@"
cmake --build "$build" --parallel "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)"
