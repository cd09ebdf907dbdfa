#!/usr/bin/env python3
"""Makes logs.txt, the list of Certificate Transparency logs.

    logs.py DATE SOURCE... >logs.txt

DATE is when the newest source was made. A SOURCE is one of
  - a list in JSON, of version 3 of Google's schema (log_list.json),
  - libxul.so of Firefox, which has such a list compiled in,
  - a file of lines "name<TAB>key in base64".
Where several have a log, the first one names it.

The list that is here was made of these packages, in this order:
  - Debian's firefox-esr 153.8.0esr-1~deb12u1 and 140.12.0esr-1~deb12u1,
  - PyPI's ctutlz 0.9.8 (ctutlz/really_all_logs.json),
  - logs-2021-2025.tsv beside this script: logs that began and ended between
    those lists, with the keys that their operators published.

Logs for tests, which take certificates of any authority, are left out.
"""
import base64
import hashlib
import json
import os
import re
import struct
import sys

TEST = re.compile(r"testtube|crucible|solera|clicky|testflume|sunshine|bogus|dodo|behind the sofa|nordu 'flimsy'", re.I)
OPERATORS = [  # by the beginning of a log's name, for sources that do not say; else its first word
    ("Google", "Google"), ("Cloudflare", "Cloudflare"), ("DigiCert", "DigiCert"), ("Symantec", "DigiCert"),
    ("Sectigo", "Sectigo"), ("Let's Encrypt", "Let's Encrypt"), ("Trust Asia", "TrustAsia"), ("TrustAsia", "TrustAsia"),
    ("IPng", "IPng Networks"),
]


def named(name):
    return next((operator for start, operator in OPERATORS if name.startswith(start)), name.split()[0])


def of_json(text):
    for operator in json.loads(text)["operators"]:
        for log in operator.get("logs", []) + operator.get("tiled_logs", []):
            yield log["description"], operator["name"], base64.b64decode(log["key"])


def of_lines(text):
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, key = line.split("\t")
            yield name, named(name), base64.b64decode(key)


def of_firefox(data):
    """The table of CTKnownLogs.h: name, state, time, operator, key, length of the key."""
    offset, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    segments = []
    for i in range(count):
        kind, _, start, address, _, size = struct.unpack_from("<IIQQQQ", data, offset + 56 * i)
        if kind == 1:
            segments.append((start, address, size))

    def address_of(place):
        return next(place - start + address for start, address, size in segments if start <= place < start + size)

    def text_at(address):
        for start, base, size in segments:
            if base <= address < base + size:
                place = address - base + start
                return data[place:data.index(b"\0", place)].decode("ascii", "replace")
        return "\ufffd"

    prefix = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
    place = data.find(prefix)
    while place >= 0:
        row = data.find(struct.pack("<QQ", address_of(place), 91))
        if row >= 0:
            name = text_at(struct.unpack_from("<Q", data, row - 32)[0])
            if name.isascii():  # else it is not that table
                yield name, named(name), data[place:place + 91]
        place = data.find(prefix, place + 1)


def main():
    date, sources = sys.argv[1], sys.argv[2:]
    logs = {}
    for source in sources:
        with open(source, "rb") as f:
            data = f.read()
        if data[:4] == b"\x7fELF":
            found = of_firefox(data)
        elif data.lstrip()[:1] == b"{":
            found = of_json(data)
        else:
            found = of_lines(data.decode())
        n = new = 0
        for name, operator, key in found:
            n += 1
            log = hashlib.sha256(key).hexdigest()
            if TEST.search(name) or log in logs:
                continue
            logs[log] = (operator, re.sub(r"\s+log$", "", re.sub(r" '([^']+)'", r" \1", name), flags=re.I), key)
            new += 1
        print(f"{os.path.basename(source)}: {n} logs, {new} of them new", file=sys.stderr)
    print("# Certificate Transparency logs of all times, those for tests left out. logs.py makes this list and names its sources.")
    print("# Name, operator, and public key (SubjectPublicKeyInfo in base64), with tabs between; the SHA-256 of a key is the ID of its log (RFC 6962, section 3.2).")
    print(f"# date: {date}")
    for operator, name, key in sorted(logs.values()):
        print(name, operator, base64.b64encode(key).decode(), sep="\t")


main()
