# Toolchain file: Debian's cross compiler (apt-get install g++-aarch64-linux-gnu). CONTRIBUTING.md has the commands.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
