"""How many compressed bytes each feature of init takes: init_features.py INIT

INIT has its symbols (`just symbols`). The bytes of a feature's functions become zeros,
and what the file is then smaller by when it is compressed is what the feature takes.
"""

import re
import subprocess
import sys
import tempfile
import zlib

FEATURES = [
    (
        "SSH: ciphers, hashes, signatures",
        r"curve25519|ed25519|sha2|chacha|poly1305|cipher|hkdf|hmac|subtle",
    ),
    ("SSH: protocol", r"\bzssh|embedded_io|rand|\b(session|server|ssh)::"),
    ("commands", r"tty_init::(run|command|status|report|job|streams)\b"),
    ("user land: its shell, program, mounts, root", r"tty_init::(shell|userland)\b"),
    ("the image's SSH server", r"tty_init::(image_server|ssh_programs|output)\b"),
    ("console", r"\b(console|protocol|json|lines|text)::"),
    ("burn", r"\b(burn|duty|thread)::"),
    ("start, devices, identity, the loop", r"tty_init"),
    ("Rust's library: text, memory", r""),
]


def section(path, name):
    """Address, offset and size of a section."""
    for line in subprocess.check_output(["readelf", "-SW", path], text=True).splitlines():
        fields = re.sub(r"^ *\[ *\d+\] *", "", line).split()
        if fields[:1] == [name]:
            return [int(field, 16) for field in fields[2:5]]


def functions(path):
    """Address, size and name of each function."""
    for line in subprocess.check_output(["nm", "-SC", path], text=True).splitlines():
        found = re.match(r"(\w{16}) (\w{16}) [tT] (.*)", line)
        if found:
            yield int(found[1], 16), int(found[2], 16), found[3]


def compressed(code):
    return len(zlib.compress(bytes(code), 9))


with_symbols = sys.argv[1]
with tempfile.NamedTemporaryFile() as stripped:
    subprocess.check_call(["strip", "-o", stripped.name, with_symbols])
    whole = stripped.read()
text, text_offset, _ = section(with_symbols, ".text")
_, constants, constants_size = section(with_symbols, ".rodata")

ranges = {feature: [] for feature, _ in FEATURES}
for address, size, name in functions(with_symbols):
    feature = next(feature for feature, pattern in FEATURES if re.search(pattern, name))
    ranges[feature].append((address - text + text_offset, size))
ranges["constants and messages of all"] = [(constants, constants_size)]

print(f"{compressed(whole):6} {len(whole):7} all")
for feature, parts in ranges.items():
    without = bytearray(whole)
    for offset, size in parts:
        without[offset : offset + size] = bytes(size)
    print(f"{compressed(whole) - compressed(without):6} {sum(size for _, size in parts):7} {feature}")
