# Every command a developer types. `./bootstrap NAME` installs what is missing first.

imgbuild := "target/release/imgbuild"

# List the commands
default:
    @just --list --unsorted

# Build the reference guest into out/tty-burn and boot it
tty-burn *ARGS:
    ./bootstrap --no-install tty-burn {{ARGS}}

# Build imgbuild
build:
    cargo build --release --locked --package imgbuild

# Run every test; real guests under TCG
test *ARGS:
    ./bootstrap --no-install test {{ARGS}}

# Check format, lints and shell scripts
lint:
    cargo fmt --all --check
    cargo clippy --release --locked --workspace --all-targets -- -D warnings
    cargo clippy --locked --profile init --package tty-init --bin tty-init --features pid1 -- -D warnings
    cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
    cargo clippy --manifest-path tests/fuzz/Cargo.toml --locked --target-dir target/fuzz --all-targets -- -D warnings

# Measure every budget, beside what a user would run otherwise
bench *ARGS: build
    IMGBUILD_BIN="$PWD/{{imgbuild}}" cargo run --release --locked --package imgbuild-tests --bin bench -- {{ARGS}}

# Build the kernel twice in different folders and compare
repro: build
    IMGBUILD_REPRO=1 IMGBUILD_BIN="$PWD/{{imgbuild}}" cargo test --release --locked --package imgbuild-tests --test repro -- --nocapture

# Build init with symbols, and say where it is; `addr2line -fe` reads a panic's addresses with it
symbols:
    CARGO_PROFILE_INIT_STRIP=none cargo build --release --locked --target-dir target/symbols
    @ls target/symbols/release/build/imgbuild-*/out/init/*/init/tty-init

# What takes hours: guests under attack, a fleet of 300 and 1,000 clones, 200 launches, Ansible, cgroup v2, and
# two newcomers, each in a minimal Debian
soak: build
    IMGBUILD_SOAK=1 IMGBUILD_TEST_GUESTS=300 IMGBUILD_TEST_CLONES=1000 IMGBUILD_TEST_ROUNDS=200 IMGBUILD_BIN="$PWD/{{imgbuild}}" \
        cargo test --release --locked --package imgbuild-tests \
        --test hostile --test fleet --test clones --test image_server --test placement --test soak -- --nocapture
    IMGBUILD_START=clone IMGBUILD_BIN="$PWD/{{imgbuild}}" cargo test --release --locked --package imgbuild-tests \
        --test hostile --test density --test fleet_faults --test image_server --test shell --test tap --test isolation
    tests/newcomer

# Run what users do under real KVM, in a machine that QEMU emulates; --sharing: one with Linux 6.12
kvm *FLAVOUR: build
    IMGBUILD_KVM="{{ if FLAVOUR == "--sharing" { "sharing" } else { "stable" } }}" IMGBUILD_BIN="$PWD/{{imgbuild}}" \
        cargo test --release --locked --package imgbuild-tests --test kvm -- --nocapture

# A shell in that machine, with imgbuild in it; ends with `exit`
kvm-shell *FLAVOUR: build
    IMGBUILD_BIN="$PWD/{{imgbuild}}" cargo run --release --locked --package imgbuild-tests --bin kvm-shell -- {{FLAVOUR}}

# Run every fuzz target for so many seconds
fuzz SECONDS="30":
    [ -x .tools/bin/cargo-fuzz ] || cargo install cargo-fuzz --debug --version 0.13.2 --locked --root .tools
    # Fresh inputs go to the first folder; the seeds are only read. Packets of SSH
    # may have up to 35,000 bytes.
    set -e; export PATH="$PWD/.tools/bin:$PATH"; for target in $(cargo fuzz list --fuzz-dir tests/fuzz); do \
        mkdir -p "target/fuzz-corpus/$target"; \
        cargo fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz -s none "$target" \
            "target/fuzz-corpus/$target" "tests/fuzz/seeds/$target" -- -max_total_time={{SECONDS}} -timeout=60 \
            -max_len=40000 -verbosity=0 -print_final_stats=1; \
    done

# Write the man pages, and the schemas of the control interface and of run.json
docs: build
    {{imgbuild}} man docs/man
    {{imgbuild}} api-schema > docs/api.schema.json
    {{imgbuild}} api-schema --of run > docs/run.schema.json
    {{imgbuild}} api-schema --of runqlat > docs/runqlat.schema.json

# Fail if the generated documents are not what the command line says
docs-check: build
    rm -rf target/man
    {{imgbuild}} man target/man
    diff -r docs/man target/man
    {{imgbuild}} api-schema | diff docs/api.schema.json -
    {{imgbuild}} api-schema --of run | diff docs/run.schema.json -
    {{imgbuild}} api-schema --of runqlat | diff docs/runqlat.schema.json -

# What CI runs
ci: lint docs-check tty-burn test kvm (fuzz "10")
